# Sourced by ../bench.sh. Builds.
# shellcheck shell=bash disable=SC2154

mkdir -p "$work/context"
{ say "FROM $small"; for i in $(seq 20); do say "RUN echo $i > /step$i"; done; } > "$work/context/Dockerfile"
ours=$(tool once "$strate" build -q -t bench "$work/context")
theirs=$(tool once podman build -q --network host -t bench "$work/context")
verdict "build of twenty small RUN steps" 0.2 "${ours% *}" "${theirs% *}"
ours=$(tool time 10 "$strate" build -q -t bench "$work/context")
theirs=$(tool time 5 podman build -q --network host -t bench "$work/context")
verdict "the same again, everything cached, median" 0.05 "$(median "$ours")" "$(median "$theirs")"
