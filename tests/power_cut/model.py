#!/usr/bin/env python3
"""What a power cut can leave of a command's work, and whether strate copes with each of it.

The command is run once under strace; its changes to the store become a log of operations. From the log the states are
made that a weak file system may show after a power cut at any point:

* The bytes of a file that was not synced may be there, cut short, all zeros, or not there at all.
* The changes of a directory come in order, and those since its last sync may be missing from any of them on. Changes
  of different directories come in any order.
* A rename within or between directories happens whole or not at all.
* fsync and fdatasync of a file make its bytes durable, and nothing else: not its name. fsync of a directory makes its
  names durable. syncfs makes all durable.

This is weaker than ext4, xfs and btrfs are. Each state is laid out in a directory, as of an earlier boot, and must
satisfy: the independent checker and `system check` find no defect; commands that read work; what the probes show is the
old or the new state, and the new one when the command had ended; the command can be run again and gives the same.

    model.py SPEC      (JSON, see `Spec`); prints one line of JSON: {"tested": …, "failures": […]}
"""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,symlink,symlinkat,mknodat,"
    "fsync,fdatasync,syncfs,sync"
)
OTHER_BOOT = "00000000-1111-2222-3333-444444444444"


class Spec:
    """What to run: read from JSON."""

    def __init__(self, text):
        known = json.loads(text)
        self.strate = known["strate"]
        self.env = known["env"]
        self.cwd = known["cwd"]
        self.store = known["store"]  # as it is before
        self.scratch = known["scratch"]
        self.command = known["command"]
        self.probes = known["probes"]
        self.reads = known["reads"]
        self.repeat = known["repeat"]  # "same", "works" or "": what the command does when it is run again
        self.seconds = known["seconds"]
        self.checker = known["checker"]  # the path of check_store.py


# ---------------------------------------------------------------------------------------------------------------------
# From strace's lines to a log


class Inode:
    """A file, directory or link. `data` are the changes of its bytes by number in the log."""

    def __init__(self, kind, base=b"", mode=0o644):
        self.kind, self.base, self.mode = kind, base, mode
        self.entries = {}  # of a directory, before the log
        self.data = []  # (number, offset, bytes) or (number, length, None)
        self.now = {}  # of a directory, at the end of the log so far


class Log:
    """Operations on a store: directory changes, changes of bytes, and syncs."""

    def __init__(self, root):
        self.root = root
        self.top = self.load(root)
        self.ops = []  # ("dir", [(directory, name, inode or None)]), ("data", inode), ("sync", inode), ("syncfs",)
        self.unknown = []

    def load(self, path):
        if os.path.islink(path):
            return Inode("link", os.readlink(path).encode())
        if os.path.isdir(path):
            node = Inode("dir", mode=os.stat(path).st_mode & 0o7777)
            for name in os.listdir(path):
                node.entries[name] = self.load(os.path.join(path, name))
            node.now = dict(node.entries)
            return node
        if not os.path.isfile(path):
            return Inode("node", b"", os.lstat(path).st_mode)
        with open(path, "rb") as file:
            return Inode("file", file.read(), os.stat(path).st_mode & 0o7777)

    def parts(self, path):
        relative = os.path.relpath(path, self.root)
        return None if relative.startswith("..") else [] if relative == "." else relative.split("/")

    def find(self, path):
        parts = self.parts(path)
        node = self.top if parts is not None else None
        for part in parts or []:
            node = node.now.get(part) if node is not None and node.kind == "dir" else None
        return node

    def parent(self, path):
        return self.find(os.path.dirname(path)), os.path.basename(path)

    def change(self, *entries):
        """One atomic change of names: (directory, name, inode or None)…"""
        for directory, name, inode in entries:
            if inode is None:
                directory.now.pop(name, None)
            else:
                directory.now[name] = inode
        self.ops.append(("dir", list(entries)))

    def put(self, path, inode):
        directory, name = self.parent(path)
        if directory is not None:
            self.change((directory, name, inode))

    def bytes(self, inode, offset, data):
        inode.data.append((len(self.ops), offset, data))
        self.ops.append(("data", inode))


def unhex(text):
    return bytes.fromhex(text.replace("\\x", "")).decode("utf-8", "surrogateescape")


QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR = re.compile(r"(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)(?:>\(deleted\)|>)")


class Parser:
    def __init__(self, log):
        self.log, self.waiting, self.positions = log, {}, {}

    def line(self, line):
        pid, _, rest = line.rstrip("\n").partition(" ")
        rest = rest.lstrip()
        if rest.endswith("<unfinished ...>"):
            self.waiting[pid] = rest[: -len("<unfinished ...>")]
            return
        resumed = re.match(r"<\.\.\. \w+ resumed>", rest)
        if resumed:
            rest = self.waiting.pop(pid, "") + rest[resumed.end():]
        call = re.match(r"(\w+)\((.*)\)\s+= (-?\d+|\?)(.*)$", rest)
        if call and not call[3].startswith(("-", "?")):
            handler = getattr(self, "do_" + call[1], None)
            if handler is not None:
                handler(call[2], int(call[3]), call[4])

    def path(self, arguments, which=0):
        """The path that the `which`-th string stands for."""
        strings = list(QUOTED.finditer(arguments))
        text = unhex(strings[which][1])
        if text.startswith("/"):
            return os.path.normpath(text)
        before = DESCRIPTOR.findall(arguments[: strings[which].start()])
        base = unhex(before[-1]) if before else self.cwd
        return os.path.normpath(os.path.join(base, text))

    def file(self, arguments):
        match = DESCRIPTOR.match(arguments)
        return (unhex(match[1]) if match else None), arguments.split("<", 1)[0]

    # -- files

    def do_openat(self, arguments, _result, rest):
        if not QUOTED.search(arguments):
            return
        path = self.path(arguments)
        if self.log.parts(path) is None:
            return
        node = self.log.find(path)
        if "O_TMPFILE" in arguments:
            return  # without a name it is of nobody's concern
        if node is None and "O_CREAT" in arguments:
            mode = re.search(r", (0\d+)$", arguments)
            node = Inode("file", mode=int(mode[1], 8) & ~0o022 if mode else 0o644)
            self.log.put(path, node)
        elif node is not None and "O_TRUNC" in arguments and node.kind == "file":
            self.log.bytes(node, 0, None)
        descriptor = DESCRIPTOR.search(rest)
        if descriptor and node is not None:
            self.positions[path] = None if "O_APPEND" in arguments else 0

    do_open = do_openat

    def written(self, arguments, data):
        path, _ = self.file(arguments)
        node = self.log.find(path) if path else None
        if node is None or node.kind != "file":
            return
        at = self.positions.get(path)
        if at is None:
            at = len(content(node))
        self.log.bytes(node, at, data)
        if self.positions.get(path) is not None:
            self.positions[path] = at + len(data)

    def do_write(self, arguments, result, _rest):
        strings = QUOTED.findall(arguments)
        if strings:
            self.written(arguments, bytes.fromhex(strings[0].replace("\\x", ""))[:result])

    def do_writev(self, arguments, result, _rest):
        data = b"".join(bytes.fromhex(one.replace("\\x", "")) for one in QUOTED.findall(arguments))
        self.written(arguments, data[:result])

    def do_pwrite64(self, arguments, result, _rest):
        path, _ = self.file(arguments)
        node = self.log.find(path) if path else None
        strings = QUOTED.findall(arguments)
        if node is not None and node.kind == "file" and strings:
            data = bytes.fromhex(strings[0].replace("\\x", ""))[:result]
            self.log.bytes(node, int(arguments.rsplit(", ", 1)[1], 0), data)

    def do_ftruncate(self, arguments, _result, _rest):
        path, _ = self.file(arguments)
        node = self.log.find(path) if path else None
        if node is not None:
            self.log.bytes(node, int(arguments.rsplit(", ", 1)[1], 0), None)

    def do_copy_file_range(self, arguments, *_):
        target = DESCRIPTOR.findall(arguments)[-1]
        if self.log.parts(unhex(target)) is not None:
            self.log.unknown.append("copy_file_range")

    # -- names

    def do_rename(self, arguments, *_):
        old, new = self.path(arguments, 0), self.path(arguments, 1)
        node = self.log.find(old)
        (before, name), (after, new_name) = self.log.parent(old), self.log.parent(new)
        if before is None and after is None:
            return
        if node is None:
            node = Inode("dir", mode=0o755)  # made by the kernel: an overlay's own
        entries = []
        if after is not None:
            entries.append((after, new_name, node))
        if before is not None:
            entries.append((before, name, None))
        self.log.change(*reversed(entries))
        if old in self.positions:
            self.positions[new] = self.positions.pop(old)

    do_renameat = do_renameat2 = do_rename

    def do_link(self, arguments, *_):
        node = self.log.find(self.path(arguments, 0))
        if node is not None:
            self.log.put(self.path(arguments, 1), node)
        else:
            # A file that had no name. If it stays, a look at the disk tells that its bytes are not known.
            self.log.put(self.path(arguments, 1), Inode("file"))

    do_linkat = do_link

    def do_symlink(self, arguments, *_):
        self.log.put(self.path(arguments, 1), Inode("link", unhex(QUOTED.findall(arguments)[0]).encode()))

    do_symlinkat = do_symlink

    def do_unlink(self, arguments, *_):
        path = self.path(arguments)
        if self.log.find(path) is not None:
            self.log.put(path, None)

    do_unlinkat = do_rmdir = do_unlink

    def do_mkdir(self, arguments, *_):
        mode = re.search(r", (0\d+)$", arguments)
        self.log.put(self.path(arguments), Inode("dir", mode=int(mode[1], 8) & ~0o022 if mode else 0o755))

    do_mkdirat = do_mkdir

    # -- syncs

    def do_fsync(self, arguments, *_):
        path, _ = self.file(arguments)
        node = self.log.find(path) if path else None
        if node is not None:
            self.log.ops.append(("sync", node))

    do_fdatasync = do_fsync

    def do_syncfs(self, *_):
        self.log.ops.append(("syncfs",))

    do_sync = do_syncfs


def content(node, upto=None, how="kept"):
    """The bytes of a file after some of its changes; the last ones may be there as zeros, or the last in half."""
    data = bytearray(node.base)
    changes = [one for one in node.data if upto is None or one[0] < upto]
    for number, (_, offset, new) in enumerate(changes):
        if new is None:
            data = data[:offset] + bytes(max(0, offset - len(data)))
            continue
        if how == "half" and number == len(changes) - 1:
            new = new[: len(new) // 2]
        if len(data) < offset:
            data += bytes(offset - len(data))
        data[offset : offset + len(new)] = new
    return bytes(data)


# ---------------------------------------------------------------------------------------------------------------------
# From the log to states


class States:
    """All states that this looks at, each once."""

    def __init__(self, log):
        self.log = log
        self.found = {}  # hash -> (tree, ended, what)
        self.seen = set()  # choices that were looked at
        self.changes = {}  # directory -> numbers of its changes
        for number, op in enumerate(log.ops):
            if op[0] == "dir":
                for entry in op[1]:
                    self.changes.setdefault(id(entry[0]), []).append(number)

    def forced(self, cut):
        """What is durable after the first `cut` operations: numbers of directory changes; file -> bytes' changes."""
        names, data = set(), {}
        for number, op in enumerate(self.log.ops[:cut]):
            if op[0] == "syncfs":
                names = {at for at, one in enumerate(self.log.ops[:number]) if one[0] == "dir"}
                data = {id(one[1]): number for one in self.log.ops[:number] if one[0] == "data"}
            elif op[0] == "sync" and op[1].kind == "dir":
                own = [at for at in self.touching(op[1], number)]
                names |= self.below(own, number)
            elif op[0] == "sync":
                data[id(op[1])] = number
        return names, data

    def touching(self, directory, cut):
        for number in self.changes.get(id(directory), []):
            if number < cut:
                yield number

    def below(self, wanted, cut):
        """The changes that must be there for these to be: earlier ones of the same directories."""
        closed, queue = set(), list(wanted)
        while queue:
            number = queue.pop()
            if number in closed:
                continue
            closed.add(number)
            for entry in self.log.ops[number][1]:
                queue.extend(at for at in self.touching(entry[0], number))
        return closed

    def above(self, dropped, cut):
        """The changes that cannot be there without these: later ones of the same directories."""
        gone = set()
        directories = {}
        for number, op in enumerate(self.log.ops[:cut]):
            if op[0] != "dir":
                continue
            if number in dropped or any(id(entry[0]) in directories for entry in op[1]):
                gone.add(number)
                for entry in op[1]:
                    directories[id(entry[0])] = True
        return gone

    def enumerate(self):
        """What had ended first; then the plainest of every cut; then the rest as chance will have it, always alike."""
        last = len(self.log.ops)
        # A cut right after a sync shows what one before it may show, and less.
        cuts = [cut for cut in range(last) if cut > 0 and self.log.ops[cut - 1][0] in ("dir", "data")]
        random.Random(1).shuffle(cuts)
        given = 0
        rounds = [(last, True, False), *((cut, False, True) for cut in cuts), *((cut, False, False) for cut in cuts)]
        for cut, ended, plain in rounds:
            self.at_cut(cut, ended, plain)
            yield from list(self.found.values())[given:]
            given = len(self.found)

    def at_cut(self, cut, ended, plain):
        durable, synced = self.forced(cut)
        every = {number for number, op in enumerate(self.log.ops[:cut]) if op[0] == "dir"}
        pending = {}
        for number in sorted(every - durable):
            for entry in self.log.ops[number][1]:
                pending.setdefault(id(entry[0]), []).append(number)
        unsynced = {}
        for number, op in enumerate(self.log.ops[:cut]):
            if op[0] == "data" and synced.get(id(op[1]), -1) < number:
                unsynced[id(op[1])] = op[1]
        kept = {key: "kept" for key in unsynced}
        self.add(every, synced, kept, cut, ended, "all kept")
        self.add(durable, synced, {}, cut, ended, "all lost")
        if plain:
            return
        for how in ("lost", "zeros", "half"):
            self.add(every, synced, {key: how for key in unsynced}, cut, ended, f"names kept, bytes {how}")
        for key in unsynced:
            for how in ("lost", "zeros", "half"):
                self.add(every, synced, {**kept, key: how}, cut, ended, f"bytes of one file {how}")
        for directory, changes in pending.items():
            only = self.below(changes, cut) | durable
            self.add(only, synced, kept, cut, ended, "one directory kept")
            self.add(only, synced, {}, cut, ended, "one directory kept, bytes lost")
            for number in changes[:8]:
                rest = every - (self.above({number}, cut) - durable)
                self.add(rest, synced, kept, cut, ended, "one directory cut short")
        keys = list(pending)
        for one in range(len(keys)):
            for other in range(one):
                lost = {pending[keys[one]][0], pending[keys[other]][0]}
                rest = every - (self.above(lost, cut) - durable)
                self.add(rest, synced, kept, cut, ended, "two directories lost")

    def add(self, names, synced, how, cut, ended, what):
        data = {key: at for key, at in synced.items()}
        lost = {key: value for key, value in how.items()}
        choice = (frozenset(names), frozenset(data.items()), frozenset(lost.items()), cut if lost else 0, ended)
        if choice in self.seen:
            return
        self.seen.add(choice)
        tree = self.tree(names, synced, how, cut)
        digest = hashlib.sha256()
        for path in sorted(tree):
            # Staging directories of another boot and lock files are not looked into: one of each will do.
            if path.startswith(("tmp/", "locks/")):
                continue
            kind, mode, data = tree[path]
            digest.update(repr((path, kind, mode, hashlib.sha256(data).hexdigest())).encode())
        key = (digest.hexdigest(), ended)
        self.found.setdefault(key, (tree, ended, f"after {cut} of {len(self.log.ops)}: {what}"))

    def tree(self, names, synced, how, cut):
        entries = {}
        for number in sorted(names):
            for directory, name, inode in self.log.ops[number][1]:
                mine = entries.setdefault(id(directory), dict(directory.entries))
                if inode is None:
                    mine.pop(name, None)
                else:
                    mine[name] = inode
        found, queue = {}, [("", self.log.top)]
        while queue:
            path, node = queue.pop()
            if node.kind == "dir":
                found[path] = ("dir", node.mode, b"")
                for name, below in entries.get(id(node), node.entries).items():
                    queue.append((f"{path}/{name}" if path else name, below))
            elif node.kind == "link":
                found[path] = ("link", 0, node.base)
            else:
                found[path] = (node.kind, node.mode, self.bytes_of(node, synced, how, cut))
        return found

    def bytes_of(self, node, synced, how, cut):
        mine = how.get(id(node), "lost")
        if mine == "lost":
            return content(node, min(synced.get(id(node), 0), cut))
        whole = content(node, cut, "half" if mine == "half" else "kept")
        if mine == "zeros":
            safe = content(node, min(synced.get(id(node), 0), cut))
            return safe[: len(whole)] + bytes(max(0, len(whole) - len(safe)))
        return whole


# ---------------------------------------------------------------------------------------------------------------------
# Looking at a state


class Trial:
    def __init__(self, spec):
        self.spec = spec
        sys.path.insert(0, os.path.dirname(spec.checker))
        self.check_store = __import__(os.path.basename(spec.checker)[:-3])
        with open("/proc/sys/kernel/random/boot_id") as file:
            self.boot = file.read().strip()

    def run(self, store, arguments):
        env = dict(self.spec.env, STRATE_ROOT=store)
        return subprocess.run(
            [self.spec.strate, *arguments], env=env, cwd=self.spec.cwd, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=60)

    def probe(self, store):
        shown = []
        for arguments in self.spec.probes:
            done = self.run(store, arguments)
            if done.returncode != 0:
                raise AssertionError(f"{arguments} ends with {done.returncode}: {done.stderr.strip()}")
            shown.append("\n".join(sorted(done.stdout.splitlines())))
        return shown

    def lay_out(self, tree, store):
        """Write a state to disk, as of another boot."""
        shutil.rmtree(store, ignore_errors=True)
        boot, other = self.boot.encode(), OTHER_BOOT.encode()
        for path in sorted(tree):
            kind, mode, data = tree[path]
            path = re.sub(r"^tmp/" + self.boot[:8], "tmp/" + OTHER_BOOT[:8], path)
            full = os.path.join(store, path) if path else store
            if kind == "dir":
                os.mkdir(full, 0o700)
            elif kind == "link":
                os.symlink(data, full)
            elif kind == "file":
                with open(full, "wb") as file:
                    file.write(data.replace(boot, other) if len(data) < 1 << 16 else data)
                os.chmod(full, mode)
        # Last changed before the machine started.
        with open("/proc/uptime") as file:
            before = time.time() - float(file.read().split()[0]) - 60
        for path in sorted(tree, reverse=True):
            if tree[path][0] != "link" and not path.startswith("tmp/"):
                os.utime(os.path.join(store, path) if path else store, (before, before))
            if tree[path][0] == "dir" and not path.startswith("tmp/"):
                os.chmod(os.path.join(store, path) if path else store, tree[path][1])

    def defects(self, store):
        checker = self.check_store.Checker(store, False)
        checker.run()
        return [f"{one['kind']}: {one['subject']}: {one['what']}" for one in checker.defects]

    def wrong(self, store, ended, old, new):
        """What is wrong with a state, or None."""
        # A store that does not say so is none yet.
        if os.path.exists(os.path.join(store, "strate.json")):
            if defects := self.defects(store):
                return f"defects: {defects}"
        for arguments in self.spec.reads:
            done = self.run(store, arguments)
            if done.returncode != 0:
                return f"{arguments} ends with {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}"
        shown = self.probe(store)
        if ended and shown != new:
            return f"was reported done and shows {shown}, not {new}"
        if any(one not in (before, after) for one, before, after in zip(shown, old, new)):
            return f"shows {shown}: neither {old} nor {new}"
        if self.spec.repeat:
            done = self.run(store, self.spec.command)
            if done.returncode != 0:
                return f"again: {done.stderr.strip()}"
            if (shown := self.probe(store)) != new and self.spec.repeat == "same":
                return f"again: shows {shown}, not {new}"
            if defects := self.defects(store):
                return f"again: defects: {defects}"
        return None


def record(spec, trial):
    """Run the command once; the log of what it did, and what the probes show before and after."""
    store = os.path.join(spec.scratch, "recorded")
    shutil.rmtree(store, ignore_errors=True)
    if os.path.isdir(spec.store):
        shutil.copytree(spec.store, store, symlinks=True)
    # The store's place and what is above it are there.
    os.makedirs(store, 0o700, exist_ok=True)
    old = trial.probe(store)
    log = Log(store)
    lines = os.path.join(spec.scratch, "trace")
    done = subprocess.run(
        ["strace", "-f", "-y", "-xx", "-s", "8000000", "-qq", "-e", f"trace={CALLS}", "-o", lines, spec.strate,
         *spec.command],
        env=dict(spec.env, STRATE_ROOT=store), cwd=spec.cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the command fails: {done.stderr}")
    parser = Parser(log)
    parser.cwd = spec.cwd
    with open(lines) as file:
        for line in file:
            parser.line(line)
    return log, old, trial.probe(store), store


def differs_from_disk(log, store):
    """Files that the log gets wrong: it must know all that was written but below unpacked layers."""
    tree = States(log).tree(
        {number for number, op in enumerate(log.ops) if op[0] == "dir"}, {},
        {id(op[1]): "kept" for op in log.ops if op[0] == "data"}, len(log.ops))
    wrong = []
    for top, dirs, files in os.walk(store):
        dirs[:] = [name for name in dirs if name != "fs" and name not in ("tmp", "locks", "upper", "work")]
        for name in files:
            path = os.path.relpath(os.path.join(top, name), store)
            full = os.path.join(top, name)
            if os.path.isfile(full) and not os.path.islink(full):
                with open(full, "rb") as file:
                    if path not in tree or tree[path][2] != file.read():
                        wrong.append(path)
    here = {path for path, what in tree.items() if what[0] == "file" and not re.search("(^|/)(fs|tmp|locks)/", path)}
    wrong.extend(path for path in here if not os.path.lexists(os.path.join(store, path)))
    return wrong


def main():
    with open(sys.argv[1]) as file:
        spec = Spec(file.read())
    os.umask(0o022)
    trial = Trial(spec)
    log, old, new, recorded = record(spec, trial)
    wrong = differs_from_disk(log, recorded)
    if log.unknown or wrong:
        raise SystemExit(f"the log is not the whole truth: {log.unknown} {wrong}")
    started = time.monotonic()
    tested, failures, all_of_them = 0, [], True
    for number, (tree, ended, what) in enumerate(States(log).enumerate()):
        if time.monotonic() - started > spec.seconds:
            all_of_them = False
            break
        store = os.path.join(spec.scratch, "state")
        trial.lay_out(tree, store)
        tested += 1
        try:
            problem = trial.wrong(store, ended, old, new)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            failures.append({"state": number, "what": what, "problem": problem})
            if os.environ.get("POWER_KEEP"):
                trial.lay_out(tree, os.path.join(spec.scratch, f"failed-{number}"))
    print(json.dumps({
        "operations": len(log.ops), "tested": tested, "all": all_of_them, "old": old, "new": new,
        "failures": failures[:40], "failed": len(failures)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
