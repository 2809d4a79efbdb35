#!/usr/bin/env python3
"""Check a store of strate as a plain OCI image layout, and for what doc/storage.md promises beside that.

Written from the OCI image specification and doc/storage.md, with Python's standard library alone, and on purpose not
from strate's own code: what one of the two overlooks, the other may see.

    check_store.py [--json] [--quick] [--imagestore DIR]... STORE

Exit status 0: sound. 1: defects, one line each. 2: it could not be checked. Garbage (what nothing needs, leftovers of
dead processes, snapshots of an earlier boot that are to be made again) is counted and is no defect. --quick leaves out
the comparison of snapshots with their layers.

Layers may lie in the additional stores that an entry's `io.strate.stores` or a container's `stores` name; --imagestore
names more, which any image or container may use. They are read there and verified like the store's own.

Owners are compared only by uid 0, of a user namespace or the host. Layers compressed with zstd need the zstd program;
without it they are skipped and counted.
"""

import argparse
import bz2
import fcntl
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile

ALGORITHMS = {"sha256": 64, "sha512": 128}
NAME = "org.opencontainers.image.ref.name"
INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
CONFIGS = {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
# Directories of a store beside the layout's own.
PARTS = {"snapshots", "containers", "volumes", "cache", "partial", "locks", "tmp"}
TOP = PARTS | {"oci-layout", "index.json", "index.json.bak", "strate.json", "strate.json.bak", "probe.json", "blobs", "damaged"}
# Lists of names as repairs found them.
DAMAGED_LIST = re.compile(r"index\.json\.damaged(\.[0-9]+)?")


class Unusable(Exception):
    """The comparison cannot be made, which says nothing about the store."""


def parse_digest(text):
    """(algorithm, hex), or None."""
    match = re.fullmatch(r"(sha256|sha512):([0-9a-f]+)", text) if isinstance(text, str) else None
    if match and len(match[2]) == ALGORITHMS[match[1]]:
        return match.groups()
    return None


def file_digest(name):
    """The digest that `<algorithm>-<hex>` stands for, or None."""
    text = name.replace("-", ":", 1)
    return text if parse_digest(text) else None


def snapshot_key(name):
    """The key in the name of a snapshot: `<algorithm>-<hex>`, and `.` and a tag of the id map where it is not the first."""
    match = re.fullmatch(r"([^.]*)(\.[0-9a-f]{8})?", name)
    return file_digest(match[1]) if match else None


def is_boot_name(name, boot):
    return name.startswith(boot[:8])


# ---------------------------------------------------------------------------------------------------------------------
# A layer's tar as a tree


class Node:
    """An entry as the layer says it should be."""

    __slots__ = ("kind", "mode", "uid", "gid", "size", "digest", "link", "rdev", "xattrs", "implied", "opaque")

    def __init__(self, kind, mode=0o755, uid=0, gid=0):
        self.kind, self.mode, self.uid, self.gid = kind, mode, uid, gid
        self.size = self.rdev = 0
        self.digest = self.link = None
        self.xattrs = {}
        self.implied = self.opaque = False


class Hashing(io.RawIOBase):
    """A reader that hashes what passes."""

    def __init__(self, inner, algorithm="sha256"):
        super().__init__()
        self.inner, self.hash = inner, hashlib.new(algorithm)

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.inner.read(len(buffer))
        self.hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def drain(self):
        while data := self.inner.read(1 << 20):
            self.hash.update(data)
        return self.hash.hexdigest()


def open_layer(path):
    """The tar of a layer's blob, by what its first bytes say."""
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb"), None
    if magic.startswith(b"BZh"):
        return bz2.open(path, "rb"), None
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(path, "rb"), None
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        if not shutil.which("zstd"):
            raise Unusable("zstd")
        process = subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE)
        return process.stdout, process
    return open(path, "rb"), None


def split(path):
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Unusable("a path with ..")
    return "/".join(parts)


class LayerTree:
    """What a layer's tar puts on disk, by path; the root is the empty path."""

    def __init__(self):
        self.nodes = {"": Node("dir")}
        self.nodes[""].implied = True
        self.pending = []

    def parents(self, path):
        at = ""
        for part in path.split("/")[:-1]:
            at = f"{at}/{part}" if at else part
            node = self.nodes.get(at)
            if node is None or node.kind == "whiteout":
                node = self.nodes[at] = Node("dir")
                node.implied = True
            if node.kind != "dir":
                raise Unusable("an entry below something that is no directory")

    def drop(self, path):
        below = path + "/"
        for known in [known for known in self.nodes if known == path or known.startswith(below)]:
            del self.nodes[known]

    def add(self, archive, info):
        path = split(info.name)
        head, _, base = path.rpartition("/")
        if base == ".wh..wh..opq":
            self.parents(path)
            self.nodes[head].opaque = True
        elif base.startswith(".wh..wh."):
            pass  # aufs' own
        elif base.startswith(".wh."):
            target = f"{head}/{base[4:]}" if head else base[4:]
            self.parents(target)
            self.nodes.setdefault(target, Node("whiteout"))
        else:
            self.entry(archive, info, path)

    def entry(self, archive, info, path):
        if not info.isdir() and not path:
            raise Unusable("a root that is no directory")
        self.parents(path)
        before = self.nodes.get(path)
        if before is not None and not (info.isdir() and before.kind == "dir"):
            self.drop(path)
        if info.islnk():
            self.hard_link(info, path)
            return
        node = self.make(archive, info)
        if before is not None and before.kind == "dir" and node.kind == "dir":
            node.opaque = before.opaque
        self.nodes[path] = node

    def hard_link(self, info, path):
        target = self.nodes.get(split(info.linkname))
        if target is None or target.kind == "whiteout":
            raise Unusable("a hard link to what this layer does not have yet")
        # The last entry of a file speaks for it.
        if target.kind != "symlink":
            target.mode, target.uid, target.gid = info.mode & 0o7777, info.uid, info.gid
        self.nodes[path] = target

    def make(self, archive, info):
        kinds = [
            (info.isdir(), "dir"), (info.isfile() or info.issparse(), "file"), (info.issym(), "symlink"),
            (info.ischr(), "char"), (info.isblk(), "block"), (info.isfifo(), "fifo"),
        ]
        kind = next((kind for fits, kind in kinds if fits), None)
        if kind is None:
            raise Unusable(f"an entry of type {info.type!r}")
        node = Node(kind, info.mode & 0o7777, info.uid, info.gid)
        if kind == "file":
            node.size, digest = info.size, hashlib.sha256()
            with archive.extractfile(info) as content:
                while data := content.read(1 << 20):
                    digest.update(data)
            node.digest = digest.hexdigest()
        elif kind == "symlink":
            node.link = info.linkname
        elif kind in ("char", "block"):
            node.rdev = os.makedev(info.devmajor, info.devminor)
        for key, value in info.pax_headers.items():
            if key.startswith("SCHILY.xattr."):
                name = key[len("SCHILY.xattr."):]
                if is_kept_xattr(name):
                    node.xattrs[name] = value.encode("utf-8", "surrogateescape")
        return node


def is_kept_xattr(name):
    return name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))


def read_layer(path):
    """The diff id of a layer's blob, and its tree (or why there is none)."""
    inner, process = open_layer(path)
    stream = Hashing(inner)
    tree, why = LayerTree(), None
    try:
        with tarfile.open(fileobj=io.BufferedReader(stream, 1 << 20), mode="r|", errorlevel=2) as archive:
            for info in archive:
                if why is None:
                    try:
                        tree.add(archive, info)
                    except Unusable as error:
                        why = str(error)
                archive.members = []
    except tarfile.TarError as error:
        why = f"not a tar that Python reads: {error}"
    diff_id = "sha256:" + stream.drain()
    if process is not None and process.wait() != 0:
        raise OSError("zstd failed")
    return diff_id, (tree if why is None else None), why


# ---------------------------------------------------------------------------------------------------------------------
# A snapshot on disk


def read_owners(path):
    """The owner table: a header line, then `path NUL uid gid mode rdev LF`."""
    with open(path, "rb") as file:
        data = file.read()
    header = b"strate owners 1\n"
    if not data.startswith(header):
        raise ValueError("it has no header")
    table, at = {}, len(header)
    while at < len(data):
        nul = data.index(b"\0", at)
        end = data.index(b"\n", nul)
        uid, gid, mode, rdev = (int(word) for word in data[nul + 1 : end].split(b" "))
        table[os.fsdecode(data[at:nul])] = (uid, gid, mode, rdev)
        at = end + 1
    return table


KINDS = {
    stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char",
    stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}


def get_xattr(path, name):
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


def read_node(full, path, owners, marked):
    """What lies at a path, its true owner taken from the table."""
    status = os.lstat(full)
    mode, uid, gid, rdev = status.st_mode, status.st_uid, status.st_gid, status.st_rdev
    if path in owners:
        uid, gid, mode, rdev = owners[path]
    node = Node(KINDS[stat.S_IFMT(mode)], stat.S_IMODE(mode), uid, gid)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        node.kind = "whiteout"
        return node, status
    if node.kind == "file":
        node.size = status.st_size
        if marked and status.st_size == 0 and get_xattr(full, "user.overlay.whiteout") is not None:
            node.kind = "whiteout"
            return node, status
        digest = hashlib.sha256()
        with open(full, "rb") as content:
            while data := content.read(1 << 20):
                digest.update(data)
        node.digest = digest.hexdigest()
    elif node.kind == "symlink":
        node.link = os.readlink(full)
    elif node.kind in ("char", "block"):
        node.rdev = rdev
    elif node.kind == "dir":
        node.opaque = get_xattr(full, "user.overlay.opaque") == b"y"
    if node.kind in ("file", "dir"):
        names = [name for name in os.listxattr(full, follow_symlinks=False) if is_kept_xattr(name)]
        node.xattrs = {name: get_xattr(full, name) for name in names}
    return node, status


def read_tree(root, owners):
    """All nodes below `root` by path, and their inodes."""
    nodes, inodes, queue = {}, {}, [""]
    nodes[""], _ = read_node(root, "", owners, False)
    while queue:
        path = queue.pop()
        directory = os.path.join(root, path) if path else root
        marked = get_xattr(directory, "user.overlay.opaque") == b"x"
        for name in os.listdir(directory):
            below = f"{path}/{name}" if path else name
            node, status = read_node(os.path.join(root, below), below, owners, marked)
            nodes[below], inodes[below] = node, status.st_ino
            if node.kind == "dir":
                queue.append(below)
    return nodes, inodes


def plain_capability(value):
    """A file capability without the namespace that it is for (`struct vfs_ns_cap_data`)."""
    if value is not None and len(value) == 24 and value[3] == 3:
        return value[:3] + b"\x02" + value[4:20]
    return value


def difference(want, have, owners):
    """In what two nodes differ, or None."""
    if want.kind != have.kind:
        return f"is a {have.kind} and should be a {want.kind}"
    if want.kind == "whiteout":
        return None
    if want.kind != "symlink" and want.mode != have.mode:
        return f"has mode {have.mode:o} and should have {want.mode:o}"
    if owners and (want.uid, want.gid) != (have.uid, have.gid):
        return f"belongs to {have.uid}:{have.gid} and should to {want.uid}:{want.gid}"
    if want.size != have.size:
        return f"has {have.size} bytes and should have {want.size}"
    if want.digest != have.digest:
        return "has other content"
    if want.link != have.link:
        return f"points to {have.link!r} and should to {want.link!r}"
    if want.rdev != have.rdev:
        return f"has device numbers {have.rdev} and should have {want.rdev}"
    if want.opaque != have.opaque:
        return "hides what is below" if have.opaque else "does not hide what is below"
    names = set(want.xattrs) | set(have.xattrs)
    for name in sorted(names):
        one, other = want.xattrs.get(name), have.xattrs.get(name)
        if name == "security.capability":
            one, other = plain_capability(one), plain_capability(other)
        if one != other:
            return f"has another {name}"
    return None


# ---------------------------------------------------------------------------------------------------------------------
# The store


class Checker:
    def __init__(self, root, quick, stores=()):
        self.root, self.quick = root, quick
        self.stores = list(stores)  # additional stores
        self.elsewhere = {}  # blob digest -> its path in one of them
        self.defects, self.garbage, self.skipped, self.counts = [], [], {}, {}
        self.reached = set()
        self.by_diff_id = {}  # diff id -> blob digest
        self.chains = {}  # chain id -> list of diff ids
        self.layers = {}  # blob digest -> (diff id, tree, why)
        self.sizes = {}  # blob digest -> bytes, of the sound ones
        self.needed_by_records = set()
        self.seen = {}
        with open("/proc/sys/kernel/random/boot_id") as file:
            self.boot = file.read().strip()

    def at(self, *parts):
        return os.path.join(self.root, *parts)

    def defect(self, kind, subject, what):
        line = {"kind": kind, "subject": subject, "what": what}
        if line not in self.defects:
            self.defects.append(line)

    def is_garbage(self, kind, subject):
        self.garbage.append({"kind": kind, "subject": subject})

    def skip(self, what):
        self.skipped[what] = self.skipped.get(what, 0) + 1

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def names_in(self, *parts):
        try:
            return sorted(os.listdir(self.at(*parts)))
        except FileNotFoundError:
            return []

    def read_json(self, kind, *parts):
        path = os.path.join(*parts)
        try:
            with open(self.at(path), "rb") as file:
                return json.loads(file.read())
        except FileNotFoundError:
            self.defect(kind, path, "it is missing")
        except ValueError as error:
            self.defect(kind, path, f"it is not JSON: {error}")
        return None

    def run(self):
        self.check_top()
        self.check_blobs()
        self.check_names()
        self.check_containers()
        self.check_volumes()
        self.check_records()
        self.check_facts()
        if not self.quick:
            self.check_snapshots()
        self.check_leftovers()
        for digest in self.sizes.keys() - self.elsewhere.keys():
            if digest not in self.reached and digest not in self.needed_by_records:
                self.is_garbage("blob", digest)

    # -- the top

    def check_top(self):
        layout = self.read_json("layout", "oci-layout")
        if layout is not None and layout.get("imageLayoutVersion") != "1.0.0":
            self.defect("layout", "oci-layout", "it does not say version 1.0.0")
        self.format = 0
        form = self.read_json("format", "strate.json")
        if form is not None:
            self.format = form.get("format")
            if not isinstance(self.format, int) or self.format < 1:
                self.defect("format", "strate.json", "it has no format number")
                self.format = 0
            for key in ("compatible", "read-only-compatible", "incompatible"):
                if not all(isinstance(name, str) for name in form.get(key, [])):
                    self.defect("format", "strate.json", f"`{key}` is not a list of names")
        for name in self.names_in():
            if name not in TOP and not DAMAGED_LIST.fullmatch(name):
                self.is_garbage("unknown", name)
            elif name in PARTS | {"blobs", "damaged"} and not stat.S_ISDIR(os.lstat(self.at(name)).st_mode):
                self.defect("layout", name, "it is not a directory")
        for name in ("snapshots", "cache"):
            tag = self.at(name, "CACHEDIR.TAG")
            if os.path.isdir(self.at(name)) and os.path.exists(tag):
                with open(tag, "rb") as file:
                    if not file.read().startswith(b"Signature: 8a477f597d28d172789f06886806bc55"):
                        self.defect("layout", f"{name}/CACHEDIR.TAG", "it has no signature")

    # -- blobs

    def check_blobs(self):
        for algorithm in self.names_in("blobs"):
            for name in self.names_in("blobs", algorithm):
                digest, path = f"{algorithm}:{name}", self.at("blobs", algorithm, name)
                if not parse_digest(digest):
                    self.is_garbage("blob", f"blobs/{algorithm}/{name}")
                    continue
                self.count("blobs")
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    self.defect("blob", digest, "it is not a regular file")
                    continue
                found, size = hashlib.new(algorithm), 0
                with open(path, "rb") as file:
                    while data := file.read(1 << 20):
                        found.update(data)
                        size += len(data)
                if found.hexdigest() != name:
                    self.defect("blob", digest, f"its {size} bytes have another digest")
                else:
                    self.sizes[digest] = size

    def blob_path(self, digest):
        return self.elsewhere.get(digest) or self.at("blobs", *parse_digest(digest))

    def look_elsewhere(self, digest):
        """Find and verify a blob in the additional stores."""
        algorithm, name = parse_digest(digest)
        for store in self.stores:
            path = os.path.join(store, "blobs", algorithm, name)
            if not os.path.isfile(path):
                continue
            found, size = hashlib.new(algorithm), 0
            with open(path, "rb") as file:
                while data := file.read(1 << 20):
                    found.update(data)
                    size += len(data)
            if found.hexdigest() != name:
                self.defect("blob", digest, f"its {size} bytes in the additional store {store} have another digest")
                continue
            self.elsewhere[digest], self.sizes[digest] = path, size
            self.count("blobs of additional stores")
            return

    def add_stores(self, owner, text):
        """The additional stores that an image says it needs."""
        try:
            stores = json.loads(text)
        except ValueError:
            stores = None
        if not isinstance(stores, list) or not all(isinstance(one, str) and one.startswith("/") for one in stores):
            self.defect("annotation", owner, f"io.strate.stores is {text!r}")
            return
        self.stores.extend(one for one in stores if one not in self.stores)

    def want_blob(self, owner, what, descriptor):
        """The digest of a blob that must be here, or None after saying what is wrong with it."""
        digest, size = descriptor.get("digest"), descriptor.get("size")
        if not parse_digest(digest):
            self.defect("reference", owner, f"its {what} has the digest {digest!r}")
            return None
        self.reached.add(digest)
        if not os.path.exists(self.blob_path(digest)):
            self.look_elsewhere(digest)
        if not os.path.exists(self.blob_path(digest)):
            self.defect("missing", digest, f"{owner} needs it as {what}")
        elif digest in self.sizes and self.sizes[digest] != size:
            self.defect("size", digest, f"{owner} says {size} bytes, it has {self.sizes[digest]}")
        return digest if digest in self.sizes else None

    def document(self, digest):
        with open(self.blob_path(digest), "rb") as file:
            try:
                return json.loads(file.read())
            except ValueError as error:
                self.defect("document", digest, f"it is not JSON: {error}")
                return None

    # -- names

    def check_names(self):
        index = self.read_json("index", "index.json")
        if index is None:
            return
        if index.get("schemaVersion") != 2 or not isinstance(index.get("manifests"), list):
            self.defect("index", "index.json", "it is not an image index")
            return
        names = set()
        for entry in index["manifests"]:
            stores = (entry.get("annotations") or {}).get("io.strate.stores")
            if stores is not None:
                self.add_stores(entry.get("digest"), stores)
        for entry in index["manifests"]:
            notes = entry.get("annotations") or {}
            name = notes.get(NAME)
            owner = name or f"the image {entry.get('digest')}"
            self.count("names" if name else "untagged")
            if name in names:
                self.defect("index", name, "it is there twice")
            elif name:
                names.add(name)
            self.check_entry(owner, entry, notes)

    def check_entry(self, owner, entry, notes):
        config = self.check_target(owner, entry, 0)
        if notes.get("io.strate.kind") not in (None, "artifact"):
            self.defect("annotation", owner, f"io.strate.kind is {notes['io.strate.kind']!r}")
        chosen = notes.get("io.strate.manifest")
        if chosen is not None and entry.get("mediaType") in INDEXES:
            config = None
            if parse_digest(chosen) and chosen in self.sizes:
                config = self.check_target(owner, {
                    "mediaType": None, "digest": chosen, "size": self.sizes[chosen]}, 1)
            else:
                self.defect("missing", str(chosen), f"{owner} runs it here")
        origin = notes.get("io.strate.index.digest")
        if origin is not None:
            self.check_origin(owner, entry, origin)
        said = notes.get("io.strate.config")
        if said is not None and config is not None and said != config[0]:
            self.defect("annotation", owner, f"io.strate.config is {said}, the config is {config[0]}")
        created = notes.get("io.strate.created")
        if created is not None and config is not None and created != (config[1] or {}).get("created"):
            self.defect("annotation", owner, "io.strate.created is not what the config says")
        if not (notes.get("io.strate.size") or "0").isdigit():
            self.defect("annotation", owner, "io.strate.size is no number")

    def check_origin(self, owner, entry, origin):
        if not parse_digest(origin):
            self.defect("annotation", owner, f"io.strate.index.digest is {origin!r}")
            return
        self.reached.add(origin)
        if origin not in self.sizes:
            self.defect("missing", origin, f"{owner} was chosen from it")
            return
        members = [one.get("digest") for one in (self.document(origin) or {}).get("manifests", [])]
        if entry.get("digest") not in members:
            self.defect("annotation", owner, f"it is not in the index {origin}")

    def check_target(self, owner, descriptor, depth):
        """Walk a manifest or index; the digest and document of the config, of a manifest."""
        digest = self.want_blob(owner, "manifest", descriptor)
        if digest is None:
            return None
        if digest in self.seen:
            return self.seen[digest]
        self.seen[digest] = None
        document = self.document(digest)
        if not isinstance(document, dict) or document.get("schemaVersion") != 2:
            self.defect("document", digest, "it is not a manifest of version 2")
            return None
        kind = document.get("mediaType") or descriptor.get("mediaType")
        said = descriptor.get("mediaType")
        if said is not None and said not in INDEXES | MANIFESTS:
            self.defect("media type", owner, f"{said!r} is no manifest's")
        if said is not None and document.get("mediaType") not in (None, said):
            self.defect("media type", digest, f"{owner} says {said!r}, itself {document['mediaType']!r}")
        if kind in INDEXES or (kind not in MANIFESTS and "manifests" in document):
            for member in document.get("manifests", []):
                if depth < 4 and parse_digest(member.get("digest")) and \
                        os.path.exists(self.blob_path(member["digest"])):
                    self.check_target(f"the index {digest}", member, depth + 1)
            return None
        self.seen[digest] = self.check_manifest(digest, document)
        return self.seen[digest]

    def check_manifest(self, digest, manifest):
        self.count("manifests")
        described = manifest.get("config")
        if not isinstance(described, dict) or not isinstance(manifest.get("layers"), list):
            self.defect("document", digest, "it has no config or no layers")
            return None
        config_digest = self.want_blob(digest, "config", described)
        blobs = [self.want_blob(digest, "layer", layer) for layer in manifest["layers"]]
        if described.get("mediaType") not in CONFIGS:
            return (described.get("digest"), None)  # an artifact
        config = self.document(config_digest) if config_digest else None
        if config is None:
            return None
        diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
        if len(diff_ids) != len(blobs):
            self.defect("config", digest, f"{len(blobs)} layers, {len(diff_ids)} diff ids")
            return (config_digest, config)
        for blob, diff_id in zip(blobs, diff_ids):
            if blob is not None:
                self.check_layer(digest, blob, diff_id)
        self.remember_chain(diff_ids)
        return (config_digest, config)

    def remember_chain(self, diff_ids):
        for end in range(1, len(diff_ids) + 1):
            chain = diff_ids[0]
            for diff_id in diff_ids[1:end]:
                chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
            self.chains[chain] = diff_ids[:end]

    def check_layer(self, owner, blob, diff_id):
        if blob not in self.layers:
            try:
                self.layers[blob] = read_layer(self.blob_path(blob))
                self.count("layers")
            except Unusable as error:
                self.layers[blob] = None
                self.skip(f"layers compressed with {error}")
            except (OSError, EOFError, lzma.LZMAError) as error:
                self.layers[blob] = None
                self.defect("layer", blob, f"it cannot be decompressed: {error}")
        known = self.layers[blob]
        if known is not None and known[0] != diff_id:
            self.defect("diff id", blob, f"{owner} says {diff_id}, it is {known[0]}")
        self.by_diff_id[diff_id] = blob

    # -- containers, volumes, records

    def check_containers(self):
        names = {}
        for id in self.names_in("containers"):
            if id.startswith(".") or not re.fullmatch("[0-9a-f]{64}", id):
                if id not in ("by-name", "auto-remove", "events", "events.1", "cgroups"):
                    self.is_garbage("unknown", f"containers/{id}")
                continue
            path = self.at("containers", id, "config.json")
            if not os.path.exists(path) or os.path.getsize(path) == 0:
                self.is_garbage("container", id)
                continue
            record = self.read_json("container", "containers", id, "config.json")
            if record is None:
                continue
            self.count("containers")
            if record.get("id") != id:
                self.defect("container", id, f"its record says {record.get('id')!r}")
            if record.get("name") in names:
                self.defect("container", id, f"{names[record['name']]} has its name too")
            names[record.get("name")] = id
            self.check_container(id, record)
        for name in self.names_in("containers", "by-name"):
            target = os.readlink(self.at("containers", "by-name", name))
            if names.get(name) != target:
                self.is_garbage("container name", name)

    def check_container(self, id, record):
        state = self.at("containers", id, "state.json")
        if os.path.exists(state):
            self.read_json("container", "containers", id, "state.json")
        for store in record.get("stores", []):
            if not isinstance(store, str) or not store.startswith("/"):
                self.defect("container", id, f"it names the additional store {store!r}")
            elif store not in self.stores:
                self.stores.append(store)
        manifest = record.get("manifest")
        if parse_digest(manifest):
            self.reached.add(manifest)
            if manifest in self.sizes:
                self.check_target(f"the container {id}", {"digest": manifest, "size": self.sizes[manifest]}, 1)
        diff_ids = []
        for layer, diff_id in record.get("layers", []):
            blob = self.want_blob(f"the container {id}", "layer", layer)
            diff_ids.append(diff_id)
            if blob is not None:
                self.check_layer(f"the container {id}", blob, diff_id)
        self.remember_chain(diff_ids)

    def check_volumes(self):
        for name in self.names_in("volumes"):
            if not os.path.exists(self.at("volumes", name, "volume.json")):
                if self.format >= 2:
                    self.is_garbage("volume", name)
                continue
            self.count("volumes")
            record = self.read_json("volume", "volumes", name, "volume.json")
            if record is not None and record.get("name") != name:
                self.defect("volume", name, f"its record says {record.get('name')!r}")
            if not os.path.isdir(self.at("volumes", name, "_data")):
                self.defect("volume", name, "it has no _data")

    def check_records(self):
        for name in self.names_in("cache", "records"):
            try:
                with open(self.at("cache", "records", name), "rb") as file:
                    head = json.loads(file.readline())
                sound = hashlib.sha256(head["key"].encode()).hexdigest() == name
            except (ValueError, KeyError, TypeError):
                sound = False
            if not sound:
                self.is_garbage("record", name)
                continue
            self.count("records")
            self.needed_by_records.update(head.get("keep", []))

    def check_facts(self):
        for name in self.names_in("cache", "layers"):
            blob = file_digest(name)
            with open(self.at("cache", "layers", name), "rb") as file:
                fact = file.read()
            words = fact.decode("ascii", "replace").split(" ")
            if blob is None or not fact.endswith(b"\n") or not parse_digest(words[0]):
                self.is_garbage("fact", name)  # a cache: not understood is not there
                continue
            known = self.layers.get(blob)
            if known is not None and known[0] != words[0]:
                self.defect("fact", blob, f"its diff id is {known[0]}, cache/layers says {words[0]}")

    # -- snapshots

    def check_snapshots(self):
        for name in self.names_in("snapshots"):
            if name == "CACHEDIR.TAG":
                continue
            key, path = snapshot_key(name), self.at("snapshots", name)
            if key is None:
                self.is_garbage("unknown", f"snapshots/{name}")
                continue
            try:
                with open(os.path.join(path, "meta.json"), "rb") as file:
                    marker = json.loads(file.read())
                stale = not marker["synced"] and marker["boot-id"] != self.boot
                diff_id = marker["diff-id"]
            except (OSError, ValueError, KeyError, TypeError):
                self.without_marker(key, path)
                continue
            if stale:
                self.is_garbage("stale snapshot", key)
            elif key != diff_id and (key not in self.chains or self.chains[key][-1] != diff_id):
                self.is_garbage("snapshot", key)
            elif diff_id not in self.by_diff_id:
                self.is_garbage("snapshot", key)
            else:
                self.check_snapshot(key, path, diff_id, marker)

    def without_marker(self, key, path):
        """One that was not written to its end does not exist; a whole marker that makes no sense is damage."""
        try:
            with open(os.path.join(path, "meta.json"), "rb") as file:
                whole = file.read().endswith(b"}")
        except OSError:
            whole = False
        if whole:
            self.defect("snapshot", key, "its marker makes no sense")
        else:
            self.is_garbage("snapshot", key)

    def check_snapshot(self, key, path, diff_id, marker):
        layer = self.layers.get(self.by_diff_id[diff_id])
        if layer is None or layer[1] is None:
            self.skip(f"snapshots of layers: {layer[2] if layer else 'not read'}")
            return
        owners = {}
        try:
            if marker.get("owners"):
                owners = read_owners(os.path.join(path, "owners"))
        except (OSError, ValueError) as error:
            self.is_garbage("snapshot", key)  # seen when it is used, and made again
            return
        try:
            nodes, inodes = read_tree(os.path.join(path, "fs"), owners)
        except FileNotFoundError:
            self.defect("snapshot", key, "it has no files")
            return
        except PermissionError:
            self.skip("snapshots that this user cannot read")
            return
        self.count("snapshots")
        self.compare(key, layer[1].nodes, nodes, inodes, key != diff_id)
        size = sum({inodes.get(at, at): node.size for at, node in nodes.items() if node.kind == "file"}.values())
        if key == diff_id and isinstance(marker.get("size"), int) and marker["size"] < size:
            self.defect("snapshot", key, f"it says {marker['size']} bytes and has {size}")

    def compare(self, key, want, have, inodes, completed):
        by_root = os.geteuid() == 0
        for path, node in want.items():
            if path not in have:
                self.defect("snapshot", key, f"`{path}` is missing")
            elif node.implied and have[path].kind == "dir":
                pass  # what the layer does not describe comes from below
            elif what := difference(node, have[path], by_root):
                self.defect("snapshot", key, f"`{path}` {what}")
        links = {}
        for path, node in want.items():
            if node.kind not in ("dir", "whiteout") and path in inodes:
                links.setdefault(id(node), set()).add(inodes[path])
        if any(len(one) > 1 for one in links.values()):
            self.defect("snapshot", key, "names of one file became several files")
        for path, node in have.items():
            if path not in want and node.kind != "socket" and not completed:
                self.defect("snapshot", key, f"`{path}` is too much")

    # -- leftovers

    def check_leftovers(self):
        for name in self.names_in("tmp"):
            if not self.is_alive(name):
                self.is_garbage("staging", name)
        for name in self.names_in("partial"):
            if file_digest(name) is None:
                self.is_garbage("partial", name)
            else:
                self.count("partial downloads")
        for name in self.names_in("locks"):
            if name.startswith("probe-"):
                self.is_garbage("probe", name)
            elif not stat.S_ISREG(os.lstat(self.at("locks", name)).st_mode):
                self.defect("layout", f"locks/{name}", "it is not a lock file")

    def is_alive(self, name):
        if not is_boot_name(name, self.boot):
            return False
        try:
            with open(self.at("tmp", name, "lease"), "rb") as lease:
                fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False


def main():
    parser = argparse.ArgumentParser(description="Check a store of strate.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="do not compare snapshots with their layers")
    parser.add_argument("--imagestore", action="append", default=[], metavar="DIR", help="an additional store")
    parser.add_argument("store")
    args = parser.parse_args()
    if not os.path.isdir(args.store):
        print(f"check_store: {args.store} is not a directory", file=sys.stderr)
        return 2
    checker = Checker(args.store, args.quick, args.imagestore)
    checker.run()
    if args.json:
        json.dump({
            "defects": checker.defects, "garbage": checker.garbage, "skipped": checker.skipped,
            "counts": checker.counts}, sys.stdout, indent=1)
        print()
    else:
        for line in checker.defects:
            print(f"{line['kind']}: {line['subject']}: {line['what']}")
        counts = ", ".join(f"{number} {what}" for what, number in sorted(checker.counts.items()))
        print(f"checked: {counts or 'nothing'}; {len(checker.garbage)} leftovers", file=sys.stderr)
        for what, number in sorted(checker.skipped.items()):
            print(f"skipped: {number} {what}", file=sys.stderr)
    return 1 if checker.defects else 0


if __name__ == "__main__":
    sys.exit(main())
