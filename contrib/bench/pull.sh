# Sourced by ../bench.sh. Pulls into an empty store, by both and by the plainest tools there are.
# shellcheck shell=bash disable=SC2154

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
pull_case big ""
pull_case files-50000 files
pull_case layers-30 layers
