# Sourced by ../bench.sh: how things are measured and judged.
# shellcheck shell=bash

tool() { python3 "$bench/tool.py" "$@"; }

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
