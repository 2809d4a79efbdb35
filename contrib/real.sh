#!/bin/sh
# Real-world Dockerfiles (contrib/real/NAME), each built and its program checked, as an ordinary user. They need
# mmdebstrap (for the base image, made with the machine's own apt sources) and package registries.
#
# usage: contrib/real.sh STRATE [NAME...]
#
# STRATE_REAL_DIR: where base image, store and logs go; kept when set (else a directory that is removed).
# STRATE_REAL_USER: whom root builds as (strate-test, as `make test` makes it).
# Settings of pip, uv and npm in the environment (PIP_INDEX_URL, UV_DEFAULT_INDEX, NPM_CONFIG_REGISTRY) are passed on;
# certificates of SSL_CERT_FILE (or Debian's place) and /etc/pip.conf go in as secrets.
set -eu

strate=$(realpath "${1:?usage: contrib/real.sh STRATE [NAME...]}")
shift
here=$(dirname "$(realpath "$0")")/real
[ $# -gt 0 ] || set -- $(ls "$here")

work=${STRATE_REAL_DIR:-}
if [ -z "$work" ]; then
    work=$(mktemp -d /var/tmp/strate-real.XXXXXX)
    # What an ordinary user's containers wrote belongs to his subordinate ids.
    cleanup() {
        rm -rf "$work" 2>/dev/null || unshare --user --map-root-user --map-auto rm -rf "$work" 2>/dev/null ||
            echo "could not remove $work" >&2
    }
    trap cleanup EXIT
    trap 'exit 130' INT TERM
fi
mkdir -p "$work/user" "$work/bin"
chmod 755 "$work" "$work/bin"

# Everything but the base image happens as an ordinary user, who gets copies of what he cannot reach.
user=$(id -un)
printf '#!/bin/sh\nexec "$@"\n' >"$work/as-user"
if [ "$(id -u)" = 0 ]; then
    user=${STRATE_REAL_USER:-strate-test}
    if ! id "$user" >/dev/null 2>&1; then
        echo "there is no user $user: \`make test\` makes one, or set STRATE_REAL_USER" >&2
        exit 1
    fi
    chown "$user:" "$work/user"
    cat >"$work/as-user" <<END
#!/bin/sh
exec runuser -u "$user" -- env -i HOME="$(getent passwd "$user" | cut -d: -f6)" PATH="\$PATH" LANG=C.UTF-8 "\$@"
END
fi
chmod 755 "$work/as-user"
cp "$strate" "$work/bin/strate.new"
chmod 755 "$work/bin/strate.new"
mv "$work/bin/strate.new" "$work/bin/strate"
rm -rf "$work/real"
cp -r "$here" "$work/real"
chmod -R a+rX "$work/real"

# The host's strate, with a store of its own.
cat >"$work/bin/real-strate" <<END
#!/bin/sh
exec "$work/bin/strate" --root "$work/user/store" "\$@"
END
chmod 755 "$work/bin/real-strate"

make_base() {
    set -- --quiet --format=tar --variant=apt --dpkgopt=force-unsafe-io
    for path in man doc locale info; do set -- "$@" "--dpkgopt=path-exclude=/usr/share/$path/*"; done
    apt-config dump --format '%f "%v";%n' Acquire |
        grep -E '::(Proxy|Check-Valid-Until|Check-Date) ' | grep -v ' ""' >"$work/apt.conf" || true
    while read -r option; do set -- "$@" "--aptopt=$option"; done <"$work/apt.conf"
    release=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || release=
    sources=
    for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        if [ -n "$release" ] && [ -z "$sources" ] && [ -s "$file" ]; then sources=$file; fi
    done
    # shellcheck disable=SC2086 # none or one
    mmdebstrap "$@" "${release:-bookworm}" "$work/base.new.tar" $sources
    chmod 644 "$work/base.new.tar"
    mv "$work/base.new.tar" "$work/base.tar"
}

if ! [ -s "$work/base.tar" ]; then
    if ! command -v mmdebstrap >/dev/null 2>&1 || ! make_base; then
        echo "tried none: no Debian base image can be made (mmdebstrap and a mirror are needed)" >&2
        exit 1
    fi
fi
"$work/as-user" "$work/bin/real-strate" import "$work/base.tar" real-base:latest >/dev/null

# What every build gets: the base, and the machine's own ways to registries.
args="--build-arg BASE=real-base:latest"
for name in PIP_INDEX_URL UV_DEFAULT_INDEX NPM_CONFIG_REGISTRY http_proxy https_proxy no_proxy; do
    value=$(printenv "$name") || continue
    args="$args --build-arg $name=$value"
done
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
if [ -r "$certificates" ]; then args="$args --secret id=ca,src=$certificates"; fi
if [ -r /etc/pip.conf ]; then args="$args --secret id=pip.conf,src=/etc/pip.conf"; fi

# Build NAME (its own way when it has a `build`), then check it. Its output goes to a log.
try() {
    cd "$work/real/$1"
    echo "== build"
    if [ -x build ]; then
        "$work/as-user" env STRATE="$work/bin/real-strate" IMAGE="real/$1" ARGS="$args" ./build || return 1
    else
        # shellcheck disable=SC2086 # a list of words
        "$work/as-user" "$work/bin/real-strate" build --progress plain $args -t "real/$1" . || return 1
    fi
    echo "== check"
    "$work/as-user" env STRATE="$work/bin/real-strate" IMAGE="real/$1" BOX="real-$1" ARGS="$args" \
        TMPDIR="$work/user" sh -eux ./check
}

# Whether the machine's own client reaches its registry; one that is not there cannot say no.
reaches() {
    command -v "$1" || return 0
    case $1 in
    pip) pip download --quiet --no-deps --no-cache-dir --dest "$work/probe" click==8.1.7 ;;
    npm) npm view is-number@7.0.0 version ;;
    esac
}

passed=0 failed=0 skipped=0
for name in "$@"; do
    if [ -s "$here/$name/needs" ] && ! reaches "$(cat "$here/$name/needs")" >/dev/null 2>&1; then
        echo "skip  $name: this machine's own $(cat "$here/$name/needs") reaches no registry"
        skipped=$((skipped + 1))
        continue
    fi
    start=$(date +%s)
    if (try "$name") >"$work/$name.log" 2>&1; then
        echo "ok    $name ($(($(date +%s) - start)) s)"
        passed=$((passed + 1))
    else
        echo "FAIL  $name ($(($(date +%s) - start)) s); the end of its log:"
        tail -n 15 "$work/$name.log" | sed 's/^/      /'
        failed=$((failed + 1))
    fi
    "$work/as-user" "$work/bin/real-strate" rm -f "real-$name" >/dev/null 2>&1 || true
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
