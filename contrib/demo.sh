#!/bin/sh
# A tour of strate without registry and network: each command is printed before its output. Everything happens in a
# store of its own, which is removed at the end.
#
# usage: contrib/demo.sh [STRATE]
set -eu

strate=$(realpath "${1:-target/x86_64-unknown-linux-gnu/release/strate}")
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/strate-demo.XXXXXX")
STRATE_ROOT=$dir/store
export STRATE_ROOT
PATH=$dir/bin:$PATH
mkdir "$dir/bin" "$dir/base" "$dir/app"
ln -s "$strate" "$dir/bin/strate"

cleanup() {
    strate rm -f tour >/dev/null 2>&1 || true
    # Files of subordinate ids are removed by one who is root of them.
    rm -rf "$dir" 2>/dev/null || unshare --user --map-root-user --map-auto rm -rf "$dir" 2>/dev/null ||
        echo "left behind: $dir" >&2
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step() { printf '\n# %s\n' "$*"; }

# Print a command as one would type it, then run it.
show() {
    printf '$'
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./:=-]*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

# Print a file as it is written.
file() {
    cat >"$1"
    printf '$ cat %s\n' "${1#"$dir/"}"
    cat "$1"
}

is_static() { ldd "$1" 2>&1 | grep -Eq 'statically linked|not a dynamic executable'; }

cd "$dir"
step 'What this host gives'
show strate doctor || true

step 'A small base image, from what the machine has'
busybox=$(PATH=$PATH:/usr/sbin:/sbin command -v busybox || true)
if [ -n "$busybox" ] && is_static "$busybox"; then
    cp "$busybox" base/busybox
    file base/Dockerfile <<'END'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /tmp && echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
CMD ["sh"]
END
    show strate build -q -t base base
    step 'An image on top of it'
    echo 'Hello from a file of the build context' >app/hello.txt
    file app/Dockerfile <<'END'
FROM base
ENV GREETING=Hello
WORKDIR /srv
COPY hello.txt .
RUN echo "$GREETING from RUN" > run.txt
CMD ["cat", "hello.txt", "run.txt"]
END
    show strate build -t app app
    step 'The same again: every step is cached'
    show strate build -t app app
    step 'Run it'
    show strate run --rm app
    step 'Change something in a container, and keep the change as an image'
    show strate run --name tour app sh -c 'echo "Hello from a container" >> /srv/run.txt'
    show strate commit -m 'one more greeting' tour app:committed
    show strate run --rm app:committed cat run.txt
else
    cp "$strate" base/strate
    file base/Dockerfile <<'END'
FROM scratch
COPY strate /bin/strate
ENTRYPOINT ["/bin/strate"]
CMD ["--version"]
END
    show strate build -t base base
    step 'An image on top of it'
    echo 'Hello from a file of the build context' >app/hello.txt
    file app/Dockerfile <<'END'
FROM base
WORKDIR /srv
COPY hello.txt .
RUN ["/bin/strate", "--root", "/srv/store", "info", "--format", "{{.OSType}}"]
CMD ["version", "--format", "{{.Client.Version}}"]
END
    show strate build -t app app
    step 'The same again: every step is cached'
    show strate build -t app app
    step 'Run it'
    show strate run --rm app
    step 'Change something in a container, and keep the change as an image'
    show strate run --name tour app --root /srv/other info --format '{{.Images}}'
    show strate commit -m 'a store in the image' tour app:committed
    show strate run --rm app:committed version --format '{{.Client.Os}}/{{.Client.Arch}}'
fi

step 'What is there'
show strate ps -a
show strate images

step 'How it was made, and of what layers'
show strate history app:committed
show strate inspect --format '{{range .RootFS.Layers}}{{println .}}{{end}}' app:committed

step 'The store is an OCI image layout: other tools read it as it lies'
show ls "$STRATE_ROOT"

step 'Done; the tour cleans up after itself'
