#!/usr/bin/env bash
# Side by side with podman and bubblewrap, in one run, as one ordinary user: ratios count, absolute times depend on the
# machine. Run by `make bench`; needs root (to make the user) or an ordinary user with subordinate ids.
#
#   BENCH_RUNS=30      runs of the short commands
#   BENCH_BIG_MB=330   compressed size of the big image, in MB
#   BENCH_USER=NAME    the ordinary user when started by root
#   BENCH_ONLY="run pull push archive build list"
set -euo pipefail

strate=${1:?usage: bench.sh PATH-OF-STRATE}
runs=${BENCH_RUNS:-30}
big_mb=${BENCH_BIG_MB:-330}
only=${BENCH_ONLY:-run pull push archive build list}
user=${BENCH_USER:-strate-test}

say() { printf '%s\n' "$*"; }
die() { say "bench: $*" >&2; exit 1; }
for tool in podman bwrap docker-registry skopeo python3 busybox curl; do
    command -v "$tool" > /dev/null || die "$tool is missing: apt-get install podman bubblewrap docker-registry skopeo curl python3 busybox-static runc uidmap"
done

# As root: hand over to the ordinary user, with a copy of the binary that it can reach.
if [ "$(id -u)" = 0 ]; then
    id "$user" > /dev/null 2>&1 || useradd -m "$user"
    home=$(mktemp -d /var/tmp/strate-bench.XXXXXX)
    install -m 755 "$strate" "$home/strate"
    install -m 755 "$0" "$home/bench.sh"
    chown -R "$user": "$home"
    status=0
    runuser -u "$user" -- env -i HOME="$home" PATH="$PATH" BENCH_RUNS="$runs" BENCH_BIG_MB="$big_mb" \
        BENCH_ONLY="$only" bash "$home/bench.sh" "$home/strate" || status=$?
    rm -rf "$home"
    exit $status
fi

work=$(mktemp -d /var/tmp/strate-bench.XXXXXX)
export HOME=$work/home XDG_RUNTIME_DIR=$work/run
mkdir -p "$HOME/.config/containers" "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
cat > "$HOME/.config/containers/containers.conf" <<'CONF'
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
CONF
printf '[storage]\ndriver = "overlay"\n' > "$HOME/.config/containers/storage.conf"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
host=127.0.0.1:$port
printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$host" > "$HOME/.config/containers/registries.conf"
cat > "$work/registry.yml" <<CONF
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: $host}
CONF
docker-registry serve "$work/registry.yml" > "$work/registry.log" 2>&1 &
registry=$!
cleanup() {
    kill "$registry" 2> /dev/null || true
    # Files of subordinate ids can only be removed from inside the namespace.
    podman unshare rm -rf "$work" 2> /dev/null || rm -rf "$work" 2> /dev/null || true
}
trap cleanup EXIT
cd "$work"

cat > "$work/tool.py" <<'PY'
"""image OUT TAG BUSYBOX BIG_MB [files|layers] | time RUNS CMD... | once CMD... (seconds and peak KiB of the whole process tree's largest)"""
import gzip, hashlib, io, json, os, resource, statistics, subprocess, sys, tarfile, time

def image(out, tag, busybox, big_mb, kind=""):
    os.makedirs(out + "/blobs/sha256", exist_ok=True)
    def put(data):
        name = hashlib.sha256(data).hexdigest()
        with open(f"{out}/blobs/sha256/{name}", "wb") as f:
            f.write(data)
        return "sha256:" + name, len(data)
    layers, diff_ids = [], []
    def layer(fill):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
            fill(tar)
        diff_ids.append("sha256:" + hashlib.sha256(raw.getvalue()).hexdigest())
        digest, size = put(gzip.compress(raw.getvalue(), 1))
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size})
    def entry(tar, name, data=None, mode=0o755, link=None):
        info = tarfile.TarInfo(name)
        info.mode = mode
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        elif data is None:
            info.type = tarfile.DIRTYPE
        else:
            info.size = len(data)
        tar.addfile(info, io.BytesIO(data) if data is not None else None)
    def base(tar):
        for d in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "var"):
            entry(tar, d, mode=0o1777 if d == "tmp" else 0o755)
        entry(tar, "bin/busybox", open(busybox, "rb").read())
        for applet in ("sh", "true", "cat", "ls", "echo", "touch", "mkdir", "sleep"):
            entry(tar, "bin/" + applet, link="busybox")
        entry(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        entry(tar, "etc/group", b"root:x:0:\n", 0o644)
    layer(base)
    # Like a language runtime: many small files and some large ones, half of the bytes compressible, in five layers.
    per_layer = big_mb * 1000 * 1000 // 5
    if kind == "files":
        # As many small files as a large node_modules, in one layer.
        def fill(tar):
            for i in range(50_000):
                if i % 50 == 0:
                    entry(tar, f"opt{i // 50}")
                entry(tar, f"opt{i // 50}/f{i}", os.urandom(700) + b"strate bench line\n" * 40, 0o644)
        layer(fill)
    if kind == "layers":
        for n in range(30):
            def fill(tar, n=n):
                entry(tar, f"opt{n}")
                for i in range(40):
                    entry(tar, f"opt{n}/f{i}", os.urandom(150_000) + b"strate bench line\n" * 5000, 0o644)
            layer(fill)
    for n in range(5 if big_mb and not kind else 0):
        def fill(tar, n=n):
            entry(tar, f"opt{n}")
            written, i = 0, 0
            while written < per_layer:
                size = 4 << 20 if i % 50 == 0 else 12000
                size = min(size, per_layer - written)
                entry(tar, f"opt{n}/f{i}", os.urandom(size) + b"strate bench line\n" * (size // 18), 0o644)
                written, i = written + size, i + 1
        layer(fill)
    config, config_size = put(json.dumps({"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "bench"}] * len(diff_ids)}).encode())
    manifest, size = put(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": layers}).encode())
    with open(out + "/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest, "size": size, "annotations": {"org.opencontainers.image.ref.name": tag}}]}, f)
    with open(out + "/oci-layout", "w") as f:
        f.write('{"imageLayoutVersion":"1.0.0"}')
    print(sum(l["size"] for l in layers) // 1_000_000)

def run(command):
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.decode()[-2000:]}")
    return seconds

if sys.argv[1] == "image":
    image(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), *sys.argv[6:])
elif sys.argv[1] == "time":
    count, command = int(sys.argv[2]), sys.argv[3:]
    run(command)
    times = sorted(run(command) for _ in range(count))
    print(f"{times[0] * 1000:.2f} {statistics.median(times) * 1000:.2f}")
else:
    seconds = run(sys.argv[2:])
    print(f"{seconds * 1000:.0f} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
PY
tool() { python3 "$work/tool.py" "$@"; }

# name, asked-for ratio, ours, theirs (milliseconds)
verdict() {
    awk -v name="$1" -v bound="$2" -v ours="$3" -v theirs="$4" 'BEGIN {
        ratio = ours / theirs
        printf "  %-46s %9.1f ms %9.1f ms   ratio %.3f (asked: at most %.3f) %s\n", name, ours, theirs, ratio, bound, ratio <= bound ? "ok" : "MISSED" }'
}
limit() {
    awk -v name="$1" -v bound="$2" -v value="$3" -v unit="$4" 'BEGIN {
        printf "  %-46s %9.1f %s   (asked: at most %s) %s\n", name, value, unit, bound, value <= bound ? "ok" : "MISSED" }'
}
min() { printf '%s' "${1% *}"; }
median() { printf '%s' "${1#* }"; }

for _ in $(seq 50); do python3 - "$port" <<'PY' && break || sleep 0.1
import socket, sys
socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)
PY
done
tool image "$work/small" busybox:1 "$(command -v busybox)" 0 > /dev/null
skopeo copy -q --dest-tls-verify=false "oci:$work/small:busybox:1" "docker://$host/busybox:1"
small=$host/busybox:1
export STRATE_ROOT=$work/store
"$strate" pull -q "$small" > /dev/null 2>&1
podman pull -q "$small" > /dev/null 2>&1

say "strate bench: $("$strate" --version), $(podman --version), $(bwrap --version); $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r)"
say "  what                                              strate          peer"
case " $only " in *" run "*)
    ours=$(tool time "$runs" "$strate" run --rm --network host "$small" true)
    theirs=$(tool time 10 podman run --rm --network host "$small" true)
    bare=$(tool time "$runs" bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev true)
    verdict "run --rm true, median, against podman" 0.1667 "$(median "$ours")" "$(median "$theirs")"
    verdict "run --rm true, median, against bwrap" 3 "$(median "$ours")" "$(median "$bare")"
    verdict "run --rm true, minimum, against bwrap" 3 "$(min "$ours")" "$(min "$bare")"
    version=$(tool time "$runs" "$strate" --version)
    limit "strate --version, median" 3 "$(median "$version")" ms
esac
# name, kind: an image is pulled into an empty store and run once, by both, and unpacked by the plainest tools there are.
pull_case() {
    local name=$1 kind=$2 size layer ours theirs
    size=$(tool image "$work/image" "$name:1" "$(command -v busybox)" "$big_mb" $kind)
    skopeo copy -q --dest-tls-verify=false "oci:$work/image:$name:1" "docker://$host/$name:1"
    rm -rf "$work/image"
    sync
    ours=$(tool once sh -c "'$strate' --root '$work/cold-$name' pull -q '$host/$name:1' && '$strate' --root '$work/cold-$name' run --rm --network host '$host/$name:1' true")
    sync
    theirs=$(tool once sh -c "podman pull -q '$host/$name:1' && podman run --rm --network host '$host/$name:1' true")
    sync
    { say 'set -e'; for layer in $(skopeo inspect --tls-verify=false --format '{{range .Layers}}{{.}} {{end}}' "docker://$host/$name:1"); do
        say "mkdir -p '$work/floor-$name/$layer'; curl -s 'http://$host/v2/$name/blobs/$layer' | gzip -d | tar -x -C '$work/floor-$name/$layer'"
    done; } > "$work/floor.sh"
    floor=$(tool once sh "$work/floor.sh")
    verdict "pull and run: $name, $size MB" 0.5 "${ours% *}" "${theirs% *}"
    limit "  peak memory" 64 "$(awk -v k="${ours#* }" 'BEGIN { print k / 1024 }')" MiB
    verdict "  against curl | gzip -d | tar -x of each layer" 1 "${ours% *}" "${floor% *}"
}
case " $only " in *" pull "*)
    pull_case big ""
    pull_case files-50000 files
    pull_case layers-30 layers
esac
case " $only " in *" archive "*)
    # The image of the pulls, or one made now.
    if ! podman image exists "$host/big:1" || ! "$strate" --root "$work/cold" image inspect "$host/big:1" > /dev/null 2>&1; then
        tool image "$work/big" big:1 "$(command -v busybox)" "$big_mb" > /dev/null
        skopeo copy -q --dest-tls-verify=false "oci:$work/big:big:1" "docker://$host/big:1"
        rm -rf "$work/big"
        "$strate" --root "$work/cold" pull -q "$host/big:1" > /dev/null
        podman pull -q "$host/big:1" > /dev/null
    fi
    sync
    ours=$(tool once "$strate" --root "$work/cold" save -q -o "$work/ours.tar" "$host/big:1")
    sync
    theirs=$(tool once podman save -q -o "$work/theirs.tar" "$host/big:1")
    verdict "save the same image" 0.5 "${ours% *}" "${theirs% *}"
    podman rmi -f "$host/big:1" > /dev/null
    sync
    ours=$(tool once "$strate" --root "$work/loaded" load -q -i "$work/ours.tar")
    sync
    theirs=$(tool once podman load -q -i "$work/theirs.tar")
    verdict "load it into an empty store" 0.5 "${ours% *}" "${theirs% *}"
    limit "peak memory of that load" 64 "$(awk -v k="${ours#* }" 'BEGIN { print k / 1024 }')" MiB
    rm -f "$work/ours.tar" "$work/theirs.tar"
esac
case " $only " in *" push "*)
    mkdir -p "$work/fresh"
    # Half of it compresses, as programs do.
    for n in $(seq 30); do head -c 10000000 /dev/urandom > "$work/fresh/random$n"; done
    yes 'strate bench line' | head -c 300000000 > "$work/fresh/text" || true
    printf 'FROM %s\nCOPY . /opt\n' "$small" > "$work/fresh.Dockerfile"
    "$strate" build -q -f "$work/fresh.Dockerfile" -t "$host/fresh/ours:1" "$work/fresh" > /dev/null 2>&1
    podman build -q -f "$work/fresh.Dockerfile" -t "$host/fresh/theirs:1" "$work/fresh" > /dev/null 2>&1
    rm -rf "$work/fresh"
    sync
    ours=$(tool once "$strate" push -q "$host/fresh/ours:1")
    sync
    theirs=$(tool once podman push -q "$host/fresh/theirs:1")
    verdict "push of a new image of 300 MB" 0.5 "${ours% *}" "${theirs% *}"
    limit "peak memory of that push" 64 "$(awk -v k="${ours#* }" 'BEGIN { print k / 1024 }')" MiB
    # From another store, which knows the image by a pull alone.
    "$strate" --root "$work/pulled" pull -q "$host/fresh/ours:1" > /dev/null 2>&1
    before=$(du -s --block-size=1 "$work/registry/docker/registry/v2/blobs" | cut -f1)
    ours=$(tool once "$strate" --root "$work/pulled" push -q "$host/fresh/ours:1" "$host/again/ours:1")
    after=$(du -s --block-size=1 "$work/registry/docker/registry/v2/blobs" | cut -f1)
    limit "push of a pulled image under another name" 100 "${ours% *}" ms
    limit "bytes that the registry gained by it" 0 $((after - before)) B
esac
case " $only " in *" build "*)
    mkdir -p "$work/context"
    { say "FROM $small"; for i in $(seq 20); do say "RUN echo $i > /step$i"; done; } > "$work/context/Dockerfile"
    ours=$(tool once "$strate" build -q -t bench "$work/context")
    theirs=$(tool once podman build -q --network host -t bench "$work/context")
    verdict "build of twenty small RUN steps" 0.2 "${ours% *}" "${theirs% *}"
    ours=$(tool time 10 "$strate" build -q -t bench "$work/context")
    theirs=$(tool time 5 podman build -q --network host -t bench "$work/context")
    verdict "the same again, everything cached, median" 0.05 "$(median "$ours")" "$(median "$theirs")"
esac
case " $only " in *" list "*)
    ours=$(tool time "$runs" "$strate" images)
    theirs=$(tool time 5 podman images)
    limit "images, median (podman: $(median "$theirs") ms)" 10 "$(median "$ours")" ms
    ours=$(tool time "$runs" "$strate" inspect "$small")
    theirs=$(tool time 5 podman inspect "$small")
    limit "inspect, median (podman: $(median "$theirs") ms)" 10 "$(median "$ours")" ms
esac
