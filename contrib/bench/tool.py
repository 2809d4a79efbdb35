"""image OUT TAG BUSYBOX BIG_MB [files|layers] | many OUT COUNT | time RUNS CMD... | once CMD... (seconds and peak KiB of the whole process tree's largest)"""
import gzip, hashlib, io, json, os, resource, statistics, subprocess, sys, tarfile, time

def image(out, tag, busybox, big_mb, kind=""):
    os.makedirs(out + "/blobs/sha256", exist_ok=True)
    def put(data):
        name = hashlib.sha256(data).hexdigest()
        with open(f"{out}/blobs/sha256/{name}", "wb") as f:
            f.write(data)
        return "sha256:" + name, len(data)
    layers, diff_ids = [], []
    def layer(fill):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
            fill(tar)
        diff_ids.append("sha256:" + hashlib.sha256(raw.getvalue()).hexdigest())
        digest, size = put(gzip.compress(raw.getvalue(), 1))
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size})
    def entry(tar, name, data=None, mode=0o755, link=None):
        info = tarfile.TarInfo(name)
        info.mode = mode
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        elif data is None:
            info.type = tarfile.DIRTYPE
        else:
            info.size = len(data)
        tar.addfile(info, io.BytesIO(data) if data is not None else None)
    def base(tar):
        for d in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "var"):
            entry(tar, d, mode=0o1777 if d == "tmp" else 0o755)
        entry(tar, "bin/busybox", open(busybox, "rb").read())
        for applet in ("sh", "true", "cat", "ls", "echo", "touch", "mkdir", "sleep"):
            entry(tar, "bin/" + applet, link="busybox")
        entry(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        entry(tar, "etc/group", b"root:x:0:\n", 0o644)
    layer(base)
    # Like a language runtime: many small files and some large ones, half of the bytes compressible, in five layers.
    per_layer = big_mb * 1000 * 1000 // 5
    if kind == "files":
        # As many small files as a large node_modules, in one layer.
        def fill(tar):
            for i in range(50_000):
                if i % 50 == 0:
                    entry(tar, f"opt{i // 50}")
                entry(tar, f"opt{i // 50}/f{i}", os.urandom(700) + b"strate bench line\n" * 40, 0o644)
        layer(fill)
    if kind == "layers":
        for n in range(30):
            def fill(tar, n=n):
                entry(tar, f"opt{n}")
                for i in range(40):
                    entry(tar, f"opt{n}/f{i}", os.urandom(150_000) + b"strate bench line\n" * 5000, 0o644)
            layer(fill)
    for n in range(5 if big_mb and not kind else 0):
        def fill(tar, n=n):
            entry(tar, f"opt{n}")
            written, i = 0, 0
            while written < per_layer:
                size = 4 << 20 if i % 50 == 0 else 12000
                size = min(size, per_layer - written)
                entry(tar, f"opt{n}/f{i}", os.urandom(size) + b"strate bench line\n" * (size // 18), 0o644)
                written, i = written + size, i + 1
        layer(fill)
    config, config_size = put(json.dumps({"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "bench"}] * len(diff_ids)}).encode())
    manifest, size = put(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": layers}).encode())
    with open(out + "/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest, "size": size, "annotations": {"org.opencontainers.image.ref.name": tag}}]}, f)
    with open(out + "/oci-layout", "w") as f:
        f.write('{"imageLayoutVersion":"1.0.0"}')
    print(sum(l["size"] for l in layers) // 1_000_000)

def many(out, count):
    """An OCI layout of small images that differ in their configs and share a layer."""
    os.makedirs(out + "/blobs/sha256", exist_ok=True)
    def put(data):
        name = hashlib.sha256(data).hexdigest()
        with open(f"{out}/blobs/sha256/{name}", "wb") as f:
            f.write(data)
        return {"digest": "sha256:" + name, "size": len(data)}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        info = tarfile.TarInfo("etc")
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    diff_id = "sha256:" + hashlib.sha256(raw.getvalue()).hexdigest()
    kind = "application/vnd.oci.image."
    layer = put(gzip.compress(raw.getvalue(), mtime=0)) | {"mediaType": kind + "layer.v1.tar+gzip"}
    entries = []
    for i in range(count):
        config = put(json.dumps({"architecture": "amd64", "os": "linux", "created": f"2026-01-{i % 28 + 1:02}T{i % 24:02}:00:00.{i:09}Z",
            "config": {"Cmd": ["sh"], "Labels": {"n": str(i)}}, "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": "bench"}]}).encode()) | {"mediaType": kind + "config.v1+json"}
        manifest = put(json.dumps({"schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": config, "layers": [layer]}).encode())
        name = f"registry.example.com/team{i % 10}/service{i}:1.{i}"
        entries.append(manifest | {"mediaType": kind + "manifest.v1+json", "annotations": {"org.opencontainers.image.ref.name": name}})
    with open(out + "/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": entries}, f)
    with open(out + "/oci-layout", "w") as f:
        f.write('{"imageLayoutVersion":"1.0.0"}')

def run(command):
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.decode()[-2000:]}")
    return seconds

if sys.argv[1] == "image":
    image(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), *sys.argv[6:])
elif sys.argv[1] == "many":
    many(sys.argv[2], int(sys.argv[3]))
elif sys.argv[1] == "time":
    count, command = int(sys.argv[2]), sys.argv[3:]
    run(command)
    times = sorted(run(command) for _ in range(count))
    print(f"{times[0] * 1000:.2f} {statistics.median(times) * 1000:.2f}")
else:
    seconds = run(sys.argv[2:])
    print(f"{seconds * 1000:.0f} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
