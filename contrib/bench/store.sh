# Sourced by ../bench.sh. What a store with many images and containers costs.
# BENCH_MANY: how many (1000).
# shellcheck shell=bash disable=SC2154

many=${BENCH_MANY:-1000}
few=10
for count in $few "$many"; do
    tool many "$work/many-$count" "$count"
    tar -C "$work/many-$count" -cf "$work/many-$count.tar" .
    rm -rf "$work/many-$count"
    "$strate" --root "$work/store-$count" load -q -i "$work/many-$count.tar" > /dev/null
done
sync

# name, words...: the same command over few and over many images
grows() {
    local name=$1 small large
    shift
    small=$(tool time "$runs" "$strate" --root "$work/store-$few" "$@")
    large=$(tool time "$runs" "$strate" --root "$work/store-$many" "$@")
    limit "$name, $many images, median" 20 "$(median "$large")" ms
    verdict "$name, $many images against $few, minimum" 1.5 "$(min "$large")" "$(min "$small")"
}
image=registry.example.com/team3/service3:1.3
version=$(tool time "$runs" "$strate" version)
limit "version: the start alone, median" 10 "$(median "$version")" ms
empty=$(tool time "$runs" "$strate" --root "$work/store-0" images)
limit "images, no store yet, median" 10 "$(median "$empty")" ms
grows "images" images
grows "images -q" images -q
grows "inspect" inspect "$image"
grows "ps" ps -a
STRATE_ROOT_BEFORE=$STRATE_ROOT
for count in $few "$many"; do
    export STRATE_ROOT=$work/store-$count
    complete[count]=$(tool time "$runs" "$strate" __complete bash 2 strate rmi "")
done
export STRATE_ROOT=$STRATE_ROOT_BEFORE
limit "completion, $many images, median" 20 "$(median "${complete[many]}")" ms
verdict "completion, $many images against $few, minimum" 1.5 "$(min "${complete[many]}")" "$(min "${complete[few]}")"

# The same for the peer, with as many as it takes in reasonable time.
peers=100
tool many "$work/many-peer" $peers
for ((i = 0; i < peers; i++)); do
    skopeo copy -q "oci:$work/many-peer:registry.example.com/team$((i % 10))/service$i:1.$i" \
        "containers-storage:registry.example.com/team$((i % 10))/service$i:1.$i" 2> /dev/null || break
done
theirs=$(tool time 5 podman images)
ours=$(tool time "$runs" "$strate" --root "$work/store-$many" images)
verdict "images: $many here, $i at podman" 0.2 "$(median "$ours")" "$(median "$theirs")"
rm -rf "$work/many-peer"

# A command is killed in the middle; the next that writes clears up after it.
plain=$(tool time 10 "$strate" --root "$work/store-$many" tag "$image" again:1)
for n in 1 2 3; do
    "$strate" --root "$work/store-$many" load -q -i "$work/many-$many.tar" > /dev/null 2>&1 &
    loading=$!
    sleep 0.3
    kill -9 $loading
    wait $loading 2> /dev/null || true
    took=$(tool once "$strate" --root "$work/store-$many" tag "$image" "again:$n")
    limit "recovery: the next tag, less a tag (try $n)" 100 "$(awk -v a="${took% *}" -v b="$(median "$plain")" 'BEGIN { print a > b ? a - b : 0 }')" ms
done

# Containers.
"$strate" --root "$work/store-0" load -q -i "$work/many-$few.tar" > /dev/null
for ((i = 0; i < many; i++)); do
    "$strate" --root "$work/store-0" create "$image" sh > /dev/null
done
listed=$(tool time "$runs" "$strate" --root "$work/store-0" ps -a)
limit "ps -a, $many containers, median" 20 "$(median "$listed")" ms
listed=$(tool time "$runs" "$strate" --root "$work/store-0" ps)
limit "ps, $many containers of which none runs, median" 20 "$(median "$listed")" ms
rm -f "$work"/many-*.tar
