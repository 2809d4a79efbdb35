# Sourced by ../bench.sh. What it costs that a pull outlives a power cut: the same with and without syncing, by turns.
# shellcheck shell=bash disable=SC2154

sync_case() {
    local name=$1 kind=$2 size mode all
    size=$(tool image "$work/image" "$name:1" "$(command -v busybox)" "$big_mb" $kind)
    skopeo copy -q --dest-tls-verify=false "oci:$work/image:$name:1" "docker://$host/$name:1"
    rm -rf "$work/image"
    for _ in 1 2 3 4 5; do
        for mode in fsync none; do
            rm -rf "$work/synced"
            sync
            all=$(tool once "$strate" --root "$work/synced" --sync "$mode" pull -q "$host/$name:1")
            say "${all% *}" >> "$work/sync-$name-$mode"
        done
    done
    verdict "pull, synced and not: $name, $size MB" 1.15 \
        "$(sort -n "$work/sync-$name-fsync" | sed -n 3p)" "$(sort -n "$work/sync-$name-none" | sed -n 3p)"
}
sync_case synced ""
sync_case synced-layers layers
