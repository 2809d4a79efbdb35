# Sourced by ../bench.sh. Starting a container.
# shellcheck shell=bash disable=SC2154

ours=$(tool time "$runs" "$strate" run --rm --network host "$small" true)
theirs=$(tool time 10 podman run --rm --network host "$small" true)
private=$(tool time "$runs" "$strate" run --rm --network private "$small" true)
theirs_private=$(tool time 10 podman run --rm "$small" true)
none=$(tool time "$runs" "$strate" run --rm --network none "$small" true)
theirs_none=$(tool time 10 podman run --rm --network none "$small" true)
bare=$(tool time "$runs" bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev true)
verdict "run --rm true, median, against podman" 0.1667 "$(median "$ours")" "$(median "$theirs")"
verdict "run --rm --network private true, median, against podman's default" 0.3333 "$(median "$private")" "$(median "$theirs_private")"
verdict "run --rm --network none true, median, against podman" 0.1667 "$(median "$none")" "$(median "$theirs_none")"
verdict "run --rm true, median, against bwrap" 3 "$(median "$ours")" "$(median "$bare")"
verdict "run --rm true, minimum, against bwrap" 3 "$(min "$ours")" "$(min "$bare")"
version=$(tool time "$runs" "$strate" --version)
limit "strate --version, median" 3 "$(median "$version")" ms

# An image of another store is used where it lies: an unpacked layer of the same user is not copied.
ours=$(tool time "$runs" "$strate" run --rm --network host "$small" true)
theirs=$(tool time "$runs" "$strate" --root "$work/store-beside" --imagestore "$STRATE_ROOT" run --rm --network host "$small" true)
verdict "run from an additional store, against the own" 1.1 "$(min "$theirs")" "$(min "$ours")"
rm -rf "$work/store-beside"
