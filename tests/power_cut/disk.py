#!/usr/bin/env python3
"""What a real ext4 shows after a power cut, as root: its disk is a file, which is copied while a command works.

The file system lies on a loop device. At a random moment the command is stopped (SIGSTOP) and the file copied until two
copies are equal: that is what a disk holds whose power goes away then, with its journal not replayed. The copy is
mounted, which replays the journal, and the store in it is looked at as in `model.py`: what was reported done is there.

    disk.py SPEC       (JSON: strate, env, cwd, scratch, checker, seconds, rounds: [[command…, name of the image]…])
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

MEGABYTES = 48


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


def stable_copy(disk, copy):
    """Copy the disk until it did not change meanwhile."""
    before = None
    for _ in range(40):
        shutil.copyfile(disk, copy)
        with open(copy, "rb") as file:
            digest = hashlib.file_digest(file, "sha1").digest()
        if digest == before:
            return True
        before = digest
    return False


class Disk:
    def __init__(self, spec):
        self.spec = spec
        self.file = os.path.join(spec["scratch"], "disk.img")
        self.copy = os.path.join(spec["scratch"], "copy.img")
        self.template = os.path.join(spec["scratch"], "template.img")
        self.place = os.path.join(spec["scratch"], "mnt")
        os.makedirs(self.place, exist_ok=True)
        self.boot = open("/proc/sys/kernel/random/boot_id").read().strip()

    def mount(self, image):
        run("mount", "-o", "loop", image, self.place)

    def prepare(self):
        """A disk with an empty store, and how long the commands take when nothing stops them."""
        with open(self.template, "wb") as file:
            file.truncate(MEGABYTES << 20)
        run("mkfs.ext4", "-q", "-F", self.template)
        self.mount(self.template)
        code, _, err = self.strate("image", "prune", "-f")
        self.unmount()
        if code != 0:
            raise OSError(f"no store can be made: {err}")
        shutil.copyfile(self.template, self.file)
        self.mount(self.file)
        started = time.monotonic()
        for command, _ in self.spec["rounds"]:
            code, _, err = self.strate(*command)
            if code != 0:
                raise OSError(f"{command}: {err}")
        self.takes = time.monotonic() - started
        self.unmount()

    def unmount(self):
        run("umount", self.place)

    def strate(self, *arguments, wait=True):
        env = dict(self.spec["env"], STRATE_ROOT=os.path.join(self.place, "store"))
        process = subprocess.Popen(
            [self.spec["strate"], *arguments], env=env, cwd=self.spec["cwd"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if not wait:
            return process
        out, err = process.communicate()
        return process.returncode, out, err

    def images(self):
        code, out, err = self.strate("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
        if code != 0:
            raise AssertionError(f"images: {err}")
        return dict(line.split(" ") for line in out.splitlines())

    def pretend_reboot(self):
        """Snapshots and staging directories are of a boot that is over."""
        store = os.path.join(self.place, "store")
        for top, dirs, files in os.walk(store):
            for name in files:
                path = os.path.join(top, name)
                if name == "meta.json" and os.path.getsize(path) < 1 << 16:
                    with open(path, "r+b") as file:
                        data = file.read().replace(self.boot.encode(), b"0" * len(self.boot))
                        file.seek(0)
                        file.write(data)
            for name in list(dirs):
                if os.path.basename(top) == "tmp" and name.startswith(self.boot[:8]):
                    os.rename(os.path.join(top, name), os.path.join(top, "00000000" + name[8:]))
                    dirs.remove(name)
        before = time.time() - float(open("/proc/uptime").read().split()[0]) - 60
        for top, _, files in os.walk(store):
            for name in [".", *files]:
                if not os.path.islink(os.path.join(top, name)):
                    os.utime(os.path.join(top, name), (before, before))


def one(disk, spec, chance, check_store):
    """One round: what is wrong, or None."""
    shutil.copyfile(disk.template, disk.file)
    disk.mount(disk.file)
    done, running = {}, None
    try:
        cut = chance.uniform(0, disk.takes * 1.5)
        started = time.monotonic()
        for command, name in spec["rounds"]:
            running = disk.strate(*command, wait=False)
            while running.poll() is None and time.monotonic() - started < cut:
                time.sleep(0.001)
            if running.poll() is None:
                os.kill(running.pid, signal.SIGSTOP)
                break
            if running.returncode != 0:
                raise AssertionError(f"{command}: {running.stderr.read()}")
            done[name] = None
            if time.monotonic() - started >= cut:
                break
        whole = stable_copy(disk.file, disk.copy)
    finally:
        if running is not None and running.poll() is None:
            running.kill()
            running.wait()
        disk.unmount()
    if not whole:
        return None, "unsteady"
    disk.mount(disk.copy)
    try:
        store = os.path.join(disk.place, "store")
        if not os.path.exists(os.path.join(store, "strate.json")):
            return ("the store is gone" if done else None), "empty"
        disk.pretend_reboot()
        checker = check_store.Checker(store, False)
        checker.run()
        if checker.defects:
            return f"after {sorted(done)}: {checker.defects}", "bad"
        shown = disk.images()
        if missing := [name for name in done if name not in shown]:
            return f"{missing} were reported done and are not there: {shown}", "bad"
        code, out, err = disk.strate("system", "check")
        if code != 0:
            return f"system check: {out}{err}", "bad"
        for command, name in spec["rounds"]:
            code, _, err = disk.strate(*command)
            if code != 0:
                return f"again: {command}: {err}", "bad"
        return None, "done" if len(done) == len(spec["rounds"]) else "cut"
    except AssertionError as error:
        return str(error), "bad"
    finally:
        disk.unmount()


def main():
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    sys.path.insert(0, os.path.dirname(spec["checker"]))
    check_store = __import__("check_store")
    # Mounts of this process's own: whatever happens, they go with it.
    if os.environ.get("STRATE_DISK_NAMESPACE") is None:
        os.environ["STRATE_DISK_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    disk = Disk(spec)
    chance, counts, failures = random.Random(int(spec.get("seed", 1))), {}, []
    started = time.monotonic()
    try:
        disk.prepare()
        while time.monotonic() - started < spec["seconds"] or not counts:
            problem, what = one(disk, spec, chance, check_store)
            counts[what] = counts.get(what, 0) + 1
            if problem:
                failures.append(problem)
    except (OSError, subprocess.CalledProcessError) as error:
        print(json.dumps({"skipped": f"{error} {getattr(error, 'stderr', b'')!r}"}))
        return 0
    print(json.dumps({"tested": sum(counts.values()), "failed": len(failures), "what": counts, "failures": failures[:20]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
