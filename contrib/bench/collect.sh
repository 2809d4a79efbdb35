# Sourced by ../bench.sh. What it costs to remove images and to ask what takes room.
# BENCH_FILES: files of the image that is removed (50,000). BENCH_MANY: images for `system df` (1000).
# shellcheck shell=bash disable=SC2154

files=${BENCH_FILES:-50000}
python3 - "$work/tree" "$files" <<'PY'
import os, sys
for i in range(int(sys.argv[2])):
    directory = f"{sys.argv[1]}/content/{i // 500}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/{i}", "w") as f:
        f.write(str(i))
with open(f"{sys.argv[1]}/Dockerfile", "w") as f:
    f.write("FROM scratch\nCOPY content /content\n")
PY
for n in 1 2 3; do
    "$strate" --root "$work/store-rmi" build -q -t "files:$n" "$work/tree" > /dev/null
    "$strate" --root "$work/store-rmi" builder prune -af > /dev/null
    took=$(tool once "$strate" --root "$work/store-rmi" rmi "files:$n")
    limit "rmi of $files files returns (try $n)" 50 "${took% *}" ms
    while [ -n "$(ls "$work/store-rmi/tmp")" ]; do sleep 0.1; done
done
podman build -q -t files:1 "$work/tree" > /dev/null 2>&1
theirs=$(tool once podman rmi files:1)
verdict "rmi of $files files" 0.2 "${took% *}" "${theirs% *}"
rm -rf "$work/tree"

# So long nobody else can pin: the time between getting the exclusive lock and letting it go.
for ((i = 0; i < 100; i++)); do
    mkdir -p "$work/hundred/$i" && head -c 100000 /dev/urandom > "$work/hundred/$i/noise"
    printf 'FROM scratch\nCOPY noise /\n' > "$work/hundred/$i/Dockerfile"
    "$strate" --root "$work/store-hundred" build -q -t "image:$i" "$work/hundred/$i" > /dev/null
done
rm -rf "$work/hundred"
python3 - "$work/store-hundred/locks/collect" > "$work/held" <<'PY' &
import fcntl, sys, time
longest, since = 0, None
end = time.monotonic() + 60
with open(sys.argv[1]) as lock:
    while time.monotonic() < end:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(lock, fcntl.LOCK_UN)
            since = None
        except BlockingIOError:
            since = since or time.monotonic()
            longest = max(longest, time.monotonic() - since)
            with open(sys.argv[1] + ".seen", "w") as seen:
                seen.write(str(longest * 1000))
PY
watcher=$!
sleep 0.3
"$strate" --root "$work/store-hundred" system prune -af > /dev/null
sleep 0.1
kill $watcher 2> /dev/null || true
wait $watcher 2> /dev/null || true
limit "system prune of 100 images holds the lock" 100 "$(cat "$work/store-hundred/locks/collect.seen" 2> /dev/null || echo 0)" ms
rm -rf "$work/store-hundred"

many=${BENCH_MANY:-1000}
tool many "$work/many" "$many"
tar -C "$work/many" -cf "$work/many.tar" .
"$strate" --root "$work/store-df" load -q -i "$work/many.tar" > /dev/null
rm -rf "$work/many" "$work/many.tar"
used=$(tool time "$runs" "$strate" --root "$work/store-df" system df)
limit "system df, $many images, median" 200 "$(median "$used")" ms
rm -rf "$work/store-df"
