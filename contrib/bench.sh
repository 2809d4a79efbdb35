#!/bin/bash
# Speed side by side with podman and bubblewrap, in one run on this machine; ratios are printed. Not a test: numbers of
# a loaded machine mean little.
#
# usage: contrib/bench.sh [STRATE]; BENCH_RUNS (20) is how often short commands are run, BENCH_IMAGE_MB (330) the
# compressed size of the image that is pulled.
set -euo pipefail

strate=$(realpath "${1:-target/x86_64-unknown-linux-gnu/release/strate}")
runs=${BENCH_RUNS:-20}
megabytes=${BENCH_IMAGE_MB:-330}

for program in podman bwrap docker-registry skopeo busybox python3; do
    if ! PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null; then
        echo "the comparison needs $program" >&2
        exit 1
    fi
done

dir=$(mktemp -d "${BENCH_DIR:-/var/tmp}/strate-bench.XXXXXX")
registry=
cleanup() {
    [ -z "$registry" ] || kill "$registry" 2>/dev/null || true
    podman "${podman_store[@]}" rm -af >/dev/null 2>&1 || true
    podman "${podman_store[@]}" rmi -af >/dev/null 2>&1 || true
    rm -rf "$dir" 2>/dev/null || unshare --user --map-root-user --map-auto rm -rf "$dir" 2>/dev/null || true
}
podman_store=(--root "$dir/podman" --runroot "$dir/podman-run" --storage-driver overlay)
trap cleanup EXIT
trap 'exit 130' INT TERM

export STRATE_ROOT=$dir/store
export CONTAINERS_CONF=$dir/containers.conf
cat >"$CONTAINERS_CONF" <<'END'
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
END
podman() { command podman "$@"; }
p() { podman "${podman_store[@]}" "$@"; }

# Milliseconds of wall time of a command.
once() {
    local start=$EPOCHREALTIME end
    "$@" >"$dir/out" 2>&1 || { echo "failed: $*" >&2; cat "$dir/out" >&2; exit 1; }
    end=$EPOCHREALTIME
    echo $(( (${end/./} - ${start/./}) )) | awk '{ printf "%.1f\n", $1 / 1000 }'
}

# The median over several runs.
median() {
    local count=$1
    shift
    for _ in $(seq "$count"); do once "$@"; done | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

printf '%-44s %10s %10s %8s %s\n' what strate other ratio aim
# name, ours, theirs, aim
line() {
    awk -v name="$1" -v ours="$2" -v theirs="$3" -v aim="$4" \
        'BEGIN { printf "%-44s %8s ms %8s ms %8.3f %s\n", name, ours, theirs, ours / theirs, aim }'
}

# --- images: a small one and a large one, in a registry on loopback ---
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$dir/registry.yml" <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:$port"}
END
PATH=$PATH:/usr/sbin docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
registry=$!
for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.1
done
small=127.0.0.1:$port/small:1
large=127.0.0.1:$port/large:1

mkdir -p "$dir/context"
cp "$(command -v busybox)" "$dir/context/busybox"
# Half of each file is noise and half is text: it compresses to about half.
python3 - "$dir/context" "$megabytes" <<'END'
import os, random, sys
top, megabytes = sys.argv[1], int(sys.argv[2])
text = (b"The quick brown fox jumps over the lazy dog. " * 24000)[: 1 << 20]
for layer in range(3):
    for index in range(max(1, megabytes // 3)):
        path = f"{top}/layer{layer}/{index // 50}/{index}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(os.urandom(1 << 20))
            file.write(text)
END
cat >"$dir/context/Dockerfile" <<'END'
FROM scratch AS small
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
CMD ["sh"]
FROM small AS large
COPY layer0 /data/0
COPY layer1 /data/1
COPY layer2 /data/2
END
"$strate" build -q --target small -t "$small" "$dir/context" >/dev/null
"$strate" build -q --target large -t "$large" "$dir/context" >/dev/null
"$strate" push -q "$small" >/dev/null
"$strate" push -q "$large" >/dev/null
p pull -q --tls-verify=false "$small" >/dev/null

# --- run true ---
mkdir -p "$dir/rootfs/bin" "$dir/rootfs/proc" "$dir/rootfs/dev"
cp "$dir/context/busybox" "$dir/rootfs/bin/busybox"
ln -s busybox "$dir/rootfs/bin/true"
ours=$(median "$runs" "$strate" run --rm --network host "$small" true)
theirs=$(median "$((runs / 4 + 1))" podman "${podman_store[@]}" run --rm --network host "$small" true)
bwrap=$(median "$runs" bwrap --unshare-all --bind "$dir/rootfs" / --proc /proc --dev /dev true)
line 'run --rm true, against podman' "$ours" "$theirs" 'at most 0.167'
line 'run --rm true, against bwrap' "$ours" "$bwrap" 'at most 3'

# --- pull and run ---
"$strate" rmi -f "$large" >/dev/null
"$strate" image prune -af >/dev/null
fetch_ours() { "$strate" pull -q "$large" && "$strate" run --rm --network host "$large" true; }
fetch_theirs() { p pull -q --tls-verify=false "$large" && p run --rm --network host "$large" true; }
export STRATE_ROOT=$dir/store2
ours=$(once fetch_ours)
theirs=$(once fetch_theirs)
line "pull and run an image of $megabytes MB" "$ours" "$theirs" 'at most 0.667'
export STRATE_ROOT=$dir/store3
peak=$(python3 - "$strate" "$large" <<'END'
import os, resource, subprocess, sys
subprocess.run([sys.argv[1], "pull", "-q", sys.argv[2]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
END
)
printf '%-44s %8s MB %11s %8s %s\n' 'peak memory of that pull' "$peak" '' '' 'at most 100 MB'
export STRATE_ROOT=$dir/store

# --- twenty small steps ---
mkdir "$dir/steps"
{
    echo "FROM $small"
    for step in $(seq 20); do echo "RUN echo $step > /step-$step"; done
} >"$dir/steps/Dockerfile"
"$strate" pull -q "$small" >/dev/null 2>&1
ours=$(once "$strate" build -q --no-cache -t steps "$dir/steps")
theirs=$(once podman "${podman_store[@]}" build -q --no-cache --layers -t steps "$dir/steps")
line 'build of twenty RUN steps, no cache' "$ours" "$theirs" 'at most 0.2'
"$strate" build -q -t steps "$dir/steps" >/dev/null
p build -q --layers -t steps "$dir/steps" >/dev/null
ours=$(median 5 "$strate" build -q -t steps "$dir/steps")
theirs=$(median 3 podman "${podman_store[@]}" build -q --layers -t steps "$dir/steps")
line 'build of twenty RUN steps, all cached' "$ours" "$theirs" 'at most 0.05'

# --- looking ---
ours=$(median "$runs" "$strate" images)
theirs=$(median "$((runs / 4 + 1))" podman "${podman_store[@]}" images)
line 'images' "$ours" "$theirs" 'at most 10 ms'
ours=$(median "$runs" "$strate" inspect "$small")
theirs=$(median "$((runs / 4 + 1))" podman "${podman_store[@]}" inspect "$small")
line 'inspect' "$ours" "$theirs" 'at most 10 ms'
ours=$(median "$runs" "$strate" --version)
printf '%-44s %8s ms %11s %8s %s\n' '--version' "$ours" '' '' 'at most 3 ms'
