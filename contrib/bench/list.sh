# Sourced by ../bench.sh. Listing one image.
# shellcheck shell=bash disable=SC2154

ours=$(tool time "$runs" "$strate" images)
theirs=$(tool time 5 podman images)
limit "images, median (podman: $(median "$theirs") ms)" 10 "$(median "$ours")" ms
ours=$(tool time "$runs" "$strate" inspect "$small")
theirs=$(tool time 5 podman inspect "$small")
limit "inspect, median (podman: $(median "$theirs") ms)" 10 "$(median "$ours")" ms
