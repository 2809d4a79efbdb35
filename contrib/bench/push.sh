# Sourced by ../bench.sh. Pushes.
# shellcheck shell=bash disable=SC2154

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
