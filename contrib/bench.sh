#!/usr/bin/env bash
# Side by side with podman and bubblewrap, in one run, as one ordinary user: ratios count, absolute times depend on the
# machine. Run by `make bench`; needs root (to make the user) or an ordinary user with subordinate ids.
#
#   BENCH_RUNS=30      runs of the short commands
#   BENCH_BIG_MB=330   compressed size of the big image, in MB
#   BENCH_USER=NAME    the ordinary user when started by root
#   BENCH_ONLY="run pull push sync archive build list store collect"      topics: the files of bench/
set -euo pipefail

strate=${1:?usage: bench.sh PATH-OF-STRATE}
runs=${BENCH_RUNS:-30}
big_mb=${BENCH_BIG_MB:-330}
only=${BENCH_ONLY:-run pull push sync archive build list store collect}
bench=$(cd "$(dirname "$0")" && pwd)/bench
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
    cp -r "$bench" "$home/bench"
    chown -R "$user": "$home"
    status=0
    runuser -u "$user" -- env -i HOME="$home" PATH="$PATH" BENCH_RUNS="$runs" BENCH_BIG_MB="$big_mb" \
        BENCH_ONLY="$only" BENCH_MANY="${BENCH_MANY:-1000}" BENCH_FILES="${BENCH_FILES:-50000}" bash "$home/bench.sh" "$home/strate" || status=$?
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
# shellcheck source=contrib/bench/common.sh
. "$bench/common.sh"

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
for topic in $only; do
    # shellcheck source=/dev/null
    . "$bench/$topic.sh"
done
