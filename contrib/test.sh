#!/bin/sh
# All tests, with their set-up. Unit tests and the rules of the code run once. The tests of the binary run as this
# user; when that is root, also as an ordinary user, who is made for it. They start registries of their own on free
# loopback ports and stop them.
#
# STRATE_TEST_DIR: where big temporary things go (/var/tmp). STRATE_FAULTS_SEED: which of the calls of each command are
# killed or fail; the number of the run by default, so that run after run comes by all of them.
set -eu
cd "$(dirname "$0")/.."

packages='docker-registry python3 skopeo umoci podman buildah runc uidmap mmdebstrap busybox-static apache2-utils strace fuse-overlayfs slirp4netns passt binutils bash-completion curl git openssh-client openssl gpg gpgv procps xz-utils bzip2 zstd e2fsprogs'
programs='docker-registry python3 skopeo umoci podman buildah runc newuidmap mmdebstrap busybox htpasswd strace fuse-overlayfs slirp4netns pasta nm curl git ssh-agent openssl gpg gpgv pgrep xz bzip2 zstd mkfs.ext4'
user=strate-test

say() { printf '\n== %s\n' "$*"; }

is_missing() {
    ! PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

# Install what the tests need, or say how.
set_up_packages() {
    missing=
    for program in $programs; do
        if is_missing "$program"; then missing="$missing $program"; fi
    done
    if [ -z "$missing" ]; then return; fi
    say "missing:$missing"
    if is_missing apt-get; then
        echo "install them with your package manager; tests that need them are skipped until then" >&2
    elif [ "$(id -u)" = 0 ]; then
        install_packages
    elif sudo -n true 2>/dev/null; then
        install_packages sudo -n
    else
        echo "tests that need them are skipped; to install everything:" >&2
        echo "    sudo apt-get install -y $packages" >&2
    fi
}

# A package that this release does not have must not keep the others out.
install_packages() {
    "$@" env DEBIAN_FRONTEND=noninteractive apt-get update -qq || true
    # shellcheck disable=SC2086 # a list of words
    "$@" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages && return
    for package in $packages; do
        "$@" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" ||
            echo "cannot install $package: tests that need it are skipped" >&2
    done
}

# An ordinary user with subordinate ids that nobody else has.
set_up_user() {
    if ! id "$user" >/dev/null 2>&1; then
        useradd --create-home --shell /bin/sh "$user"
    fi
    for file in /etc/subuid /etc/subgid; do
        if ! grep -q "^$user:" "$file" 2>/dev/null; then
            next=$(awk -F: 'BEGIN { next_id = 100000 } { end = $2 + $3; if (end > next_id) next_id = end } END { print next_id }' "$file" 2>/dev/null || echo 100000)
            echo "$user:$next:65536" >>"$file"
        fi
    done
}

# Run a command with a /dev/net/tun that ordinary users can open, as udev makes it; where that cannot be had, without.
with_tun() {
    if ! [ -c /dev/net/tun ] || runuser -u "$user" -- sh -c ': <>/dev/net/tun' 2>/dev/null; then
        "$@"
    elif mknod -m 666 "$work/tun" c 10 200 2>/dev/null; then
        # shellcheck disable=SC2016 # expanded by the inner shell
        unshare -m sh -c 'mount --bind "$0" /dev/net/tun; exec "$@"' "$work/tun" "$@"
    else
        "$@"
    fi
}

# The path of a test binary, from what cargo says about it.
test_binary() {
    said=$(cargo test --locked --no-run --test "$1" 2>&1) || true
    printf '%s\n' "$said" >&2
    printf '%s\n' "$said" | sed -n 's/^ *Executable .*(\(.*\))$/\1/p' | tail -1
}

status=0
results=$(mktemp)
work=
cleanup() {
    rm -f "$results"
    if [ -n "$work" ]; then rm -rf "$work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Run a command, keep its counts, remember its failure, go on.
run() {
    name=$1
    shift
    say "$name"
    log=$(mktemp)
    code=0
    { "$@" 2>&1 || echo "$?" >"$log.code"; } | tee "$log"
    if [ -s "$log.code" ]; then
        code=$(cat "$log.code")
        status=1
    fi
    counts=$(sed -n 's/^test result: //p' "$log" | tail -1)
    skips=$(grep -c '^SKIPPED: ' "$log" || true)
    printf '%-40s exit %s  skipped %s  %s\n' "$name" "$code" "$skips" "$counts" >>"$results"
    rm -f "$log" "$log.code"
}

set_up_packages
STRATE_FAULTS_SEED=${STRATE_FAULTS_SEED:-${CI_PIPELINE_IID:-${GITHUB_RUN_NUMBER:-$(date +%s)}}}
export STRATE_FAULTS_SEED

run 'unit tests' cargo test --locked --lib
run 'rules of the code' cargo test --locked --test layering
run 'the binary itself' cargo test --locked --test static_binary
run 'completion scripts' cargo test --locked --test completions
run 'hostile input, shortly' cargo test --locked --test fuzz

cli=$(test_binary cli)
language=$(test_binary language)
power=$(test_binary power_cut)
soak=$(test_binary soak)
faults=$(test_binary faults)
target=$(realpath "${CARGO_TARGET_DIR:-target}")
images=$target/test-images
binary=$target/x86_64-unknown-linux-gnu/debug/strate
base=${STRATE_TEST_DIR:-/var/tmp}
if [ -z "$cli" ] || [ -z "$language" ] || [ -z "$soak" ] || [ -z "$faults" ] || [ -z "$power" ] || ! [ -x "$binary" ]; then
    echo "the tests of the binary did not build" >&2
    exit 1
fi

if [ "$(id -u)" = 0 ]; then
    set_up_user
    # Copies that an ordinary user can reach, wherever the sources lie; images are made once, by root.
    work=$(mktemp -d "$base/strate-make-test.XXXXXX")
    cp "$cli" "$work/cli"
    cp "$language" "$work/language"
    cp "$soak" "$work/soak"
    cp "$power" "$work/power"
    cp "$faults" "$work/faults"
    cp "$binary" "$work/strate"
    mkdir -p "$images"
    chmod 755 "$work" "$work/cli" "$work/language" "$work/soak" "$work/faults" "$work/power" "$work/strate"
    run 'the verbs, as root' env STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" \
        STRATE_TEST_CACHE="$images" "$work/cli"
    run 'the Dockerfile language, as root' env STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" "$work/language"
    run 'the soak, shortly, as root' env STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" \
        STRATE_TEST_CACHE="$images" "$work/soak" --nocapture
    run 'power cuts, as root' env STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" STRATE_TEST_CACHE="$images" "$work/power"
    run 'kills and faults, as root' env STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" "$work/faults"
    cp -r "$images" "$work/images"
    # Without a directory of its own, skopeo looks for logins below /run/containers, which root's podman may have closed.
    mkdir -m 700 "$work/run"
    chown -R "$user:" "$work/images" "$work/run"
    home=$(getent passwd "$user" | cut -d: -f6)
    run "the verbs, as the ordinary user $user" with_tun runuser -u "$user" -- env -i HOME="$home" PATH="$PATH" \
        CI="${CI:-}" LANG=C.UTF-8 STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" \
        STRATE_TEST_CACHE="$work/images" XDG_RUNTIME_DIR="$work/run" sh -c "cd / && exec '$work/cli'"
    run "the Dockerfile language, as the ordinary user $user" runuser -u "$user" -- env -i HOME="$home" PATH="$PATH" \
        CI="${CI:-}" LANG=C.UTF-8 STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" sh -c "cd / && exec '$work/language'"
    run "power cuts, as the ordinary user $user" runuser -u "$user" -- env -i HOME="$home" PATH="$PATH" \
        CI="${CI:-}" LANG=C.UTF-8 STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" \
        STRATE_TEST_CACHE="$work/images" XDG_RUNTIME_DIR="$work/run" sh -c "cd / && exec '$work/power'"
    run "the soak, shortly, as the ordinary user $user" runuser -u "$user" -- env -i HOME="$home" PATH="$PATH" \
        CI="${CI:-}" LANG=C.UTF-8 STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" \
        STRATE_TEST_CACHE="$work/images" XDG_RUNTIME_DIR="$work/run" sh -c "cd / && exec '$work/soak' --nocapture"
    run "kills and faults, as the ordinary user $user" runuser -u "$user" -- env -i HOME="$home" PATH="$PATH" \
        CI="${CI:-}" LANG=C.UTF-8 STRATE_BIN="$work/strate" STRATE_TEST_DIR="$base" \
        STRATE_FAULTS_SEED="$STRATE_FAULTS_SEED" XDG_RUNTIME_DIR="$work/run" sh -c "cd / && exec '$work/faults'"
else
    run 'the verbs, as this user' env STRATE_BIN="$binary" STRATE_TEST_DIR="$base" "$cli"
    run 'power cuts, as this user' env STRATE_BIN="$binary" STRATE_TEST_DIR="$base" "$power"
    run 'the Dockerfile language, as this user' env STRATE_BIN="$binary" STRATE_TEST_DIR="$base" "$language"
    run 'the soak, shortly, as this user' env STRATE_BIN="$binary" STRATE_TEST_DIR="$base" "$soak" --nocapture
    run 'kills and faults, as this user' env STRATE_BIN="$binary" STRATE_TEST_DIR="$base" "$faults"
fi

say 'results'
cat "$results"
exit "$status"
