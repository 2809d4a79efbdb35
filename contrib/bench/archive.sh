# Sourced by ../bench.sh. save and load.
# shellcheck shell=bash disable=SC2154

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
