#!/usr/bin/env python3
"""
A writer that says what it was promised, and a check of that after a crash.

    manifest.py write MNT MANIFEST ROUND [DISK]  works on the tree until it is gone; each line of MANIFEST says what is about to
                                              change (b), or what a system call that has returned promises (a)
    manifest.py check MNT MANIFEST kill|power after the next mount: the tree holds it; MANIFEST then says what is there
    manifest.py end MNT MANIFEST              every submitted instance has exactly one answer

Batches come as directories and, three of ten, as archives; after the crash an archive is either unpacked, whole, or yet to be.

A path's history is a list of versions. kill: the last one acknowledged, or one begun after it, is there. power: the last one
that was acknowledged after an fsync, or one after it. A version is whole if its bytes were promised (closed; for power: fsynced),
else each byte of it is right or missing; what was promised before an append is right in any case. An answer that was
seen (power: fsynced by its reader) never changes.

DISK: where the state's disk is mounted, if it is one that the test shuts down. An fsync on xfs that overlaps the shutdown may return 0 and keep
nothing (Linux 6.18: 9 of 300 shutdowns, with a program that only appends and fdatasyncs): the log is thrown away, the inode thereby
unpinned, and fsync finds nothing left to wait for. So an fsync counts when the disk was still there after it, as its own fsync then says.
"""
import collections, csv, errno, hashlib, io, json, os, random, shutil, sys, tarfile, threading, time

KEEP_ROUNDS = 2
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EROFS, errno.ENODEV}


def content(v):
    """Of version {"seed", "size"}; a smaller size is a prefix."""
    block = hashlib.shake_128(v["seed"].encode()).digest(4099)
    return (block * (v["size"] // len(block) + 1))[: v["size"]]


def member_of(batch, name, size):
    return {"seed": "%s/%s" % (batch, name), "size": size}


class Writer:
    def __init__(self, mnt, manifest, round_no, disk=None):
        self.mnt, self.round = mnt, int(round_no)
        self.log = os.open(manifest, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.disk = os.open(disk + "/probe", os.O_RDWR | os.O_CREAT) if disk else -1  # a directory's fsync does not look
        self.bad = []
        self.seen = {}
        self.open_batches = {}
        self.lock = threading.Lock()

    def say(self, **line):
        if line.get("d") and self.disk >= 0:
            os.fsync(self.disk)  # EIO, if it was shut down meanwhile
        data = (json.dumps(line) + "\n").encode()
        assert os.write(self.log, data) == len(data)

    def begin(self, path, v, whole=False):
        self.say(t="b", p=path, v=v, whole=whole)

    def ack(self, path, v, durable):
        self.say(t="a", p=path, v=v, d=durable)

    def sync_dir(self, path):
        fd = os.open(os.path.join(self.mnt, path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def put(self, path, v, flags, offset, sync):
        self.begin(path, v)
        fd = os.open(os.path.join(self.mnt, path), flags, 0o644)
        try:
            data = content(v)
            at = offset
            while at < len(data):  # short: the kernel made two requests of it, and the daemon ended between them
                at += os.pwrite(fd, data[at : at + 50000], at)
            if sync:
                os.fsync(fd)
                self.ack(path, v, True)
        finally:
            os.close(fd)
        if not sync:
            self.ack(path, v, False)

    def files(self, no):
        """One thread: creates, appends, renames, replaces, removes."""
        rng = random.Random()
        dir = "datasets/m/%d-%d" % (self.round, no)
        os.mkdir(os.path.join(self.mnt, dir))
        mine, n = {}, 0
        while True:
            n += 1
            path = "%s/%d" % (dir, n)
            size = rng.randrange(9000) if rng.random() < 0.85 else rng.randrange(66000, 400000)
            what, sync = rng.random(), rng.random() < 0.3
            old = rng.choice(list(mine)) if mine else None
            if not old or (what < 0.5 and len(mine) < 60):
                v = {"seed": path, "size": size}
                self.put(path, v, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0, sync)
                mine[path] = v
            elif what < 0.65:
                v = {"seed": mine[old]["seed"], "size": mine[old]["size"] + size}
                self.put(old, v, os.O_WRONLY, mine[old]["size"], sync)
                mine[old] = v
            elif what < 0.85:  # a rename, half of them over another file, of what was fsynced
                v = {"seed": path, "size": size}
                self.put(path, v, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0, True)
                to = old if what < 0.75 else path + "-moved"
                self.say(t="r", p=path, to=to, v=v)
                self.begin(to, v, True)
                self.begin(path, None)
                os.rename(os.path.join(self.mnt, path), os.path.join(self.mnt, to))
                if sync:
                    self.sync_dir(dir)
                self.ack(to, v, sync)
                self.ack(path, None, sync)
                mine[to] = v
            else:
                del mine[old]
                self.begin(old, None)
                os.unlink(os.path.join(self.mnt, old))
                if sync:
                    self.sync_dir(dir)
                self.ack(old, None, sync)

    def batches(self):
        rng, n = random.Random(), 0
        base = os.path.join(self.mnt, "infer/app/in")
        while True:
            with self.lock:
                waiting = len(self.open_batches)
            if waiting >= 3:
                os.statvfs(base)  # a stat may be answered by the kernel
                time.sleep(0.005)
                continue
            n += 1
            name, sync = "b%d-%d" % (self.round, n), rng.random() < 0.5
            names = ["%d.png" % i for i in range(rng.randrange(1, 40))]
            archive = rng.random() < 0.3
            if archive:
                self.archive(base, name, names, sync, rng.randrange(5000))
            else:
                os.mkdir("%s/.%s" % (base, name))
                for i in names:
                    with open("%s/.%s/%s" % (base, name, i), "wb") as f:
                        f.write(b"x" * rng.randrange(2000))
                os.rename("%s/.%s" % (base, name), "%s/%s" % (base, name))
            if sync:
                self.sync_dir("infer/app/in")
            self.say(t="s", p=name, names=names, d=sync, archive=archive)
            with self.lock:
                self.open_batches[name] = set(names)

    def archive(self, base, name, names, sync, size):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for i in names:
                member = tarfile.TarInfo(i)
                member.size = size
                tar.addfile(member, io.BytesIO(content(member_of(name, i, size))))
        with open("%s/.%s.tar" % (base, name), "wb") as f:
            f.write(data.getvalue())
            f.flush()
            if sync:
                os.fsync(f.fileno())
        os.rename("%s/.%s.tar" % (base, name), "%s/%s.tar" % (base, name))

    def answers(self):
        rng = random.Random()
        out = os.path.join(self.mnt, "infer/app/out")
        while True:
            with self.lock:
                open_batches = dict(self.open_batches)
            os.statvfs(out)
            for name, left in open_batches.items():
                try:
                    there = set(os.listdir("%s/%s" % (out, name)))
                except FileNotFoundError:
                    continue
                for i in [i for i in left if i + ".json" in there]:
                    path = "infer/app/out/%s/%s.json" % (name, i)
                    fd = os.open(os.path.join(self.mnt, path), os.O_RDONLY)
                    try:
                        data = os.read(fd, 1 << 20)
                        sync = rng.random() < 0.1
                        if sync:
                            os.fsync(fd)
                    finally:
                        os.close(fd)
                    json.loads(data)
                    self.say(t="w", p=path, sha=hashlib.sha256(data).hexdigest(), d=sync)
                    left.discard(i)
                if not left:
                    with self.lock:
                        del self.open_batches[name]
            time.sleep(0.002)

    def thread(self, fn, *args):
        try:
            fn(*args)
        except OSError as e:
            if e.errno not in GONE:
                self.bad.append("%s: %r" % (fn.__name__, e))
        except BaseException as e:
            self.bad.append("%s: %r" % (fn.__name__, e))

    def run(self):
        jobs = [(self.files, 1), (self.files, 2), (self.batches,), (self.answers,)]
        threads = [threading.Thread(target=self.thread, args=j) for j in jobs]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for b in self.bad:
            print("writer:", b)
        return 1 if self.bad else 0


class Check:
    def __init__(self, mnt, manifest, power):
        self.mnt, self.manifest, self.power = mnt, manifest, power
        self.history = {}
        self.renames, self.submitted, self.seen = [], {}, {}
        self.faults = 0
        with open(manifest) as f:
            for line in f:
                self.line(json.loads(line))

    def fault(self, text):
        print("FAULT:", text)
        self.faults += 1

    def line(self, l):
        p = l["p"]
        h = self.history.setdefault(p, [{"v": None, "whole": True, "a": True, "d": True}]) if l["t"] in "bao" else None
        if l["t"] == "b":
            h.append({"v": l["v"], "whole": l["whole"], "a": False, "d": False})
        elif l["t"] == "a":
            assert h[-1]["v"] == l["v"]
            h[-1]["a"] = True
            h[-1]["d"] = l["d"]
        elif l["t"] == "o":
            self.history[p] = [{"v": l["v"], "whole": True, "a": True, "d": True}]
        elif l["t"] == "r":
            self.renames.append(l)
        elif l["t"] == "s":
            self.submitted[p] = l
        elif l["t"] == "w":
            self.seen[p] = l

    def read(self, path):
        try:
            with open(os.path.join(self.mnt, path), "rb") as f:
                data = f.read()
        except FileNotFoundError:
            return None
        if len(data) != os.stat(os.path.join(self.mnt, path)).st_size:
            self.fault("%s: %d bytes read" % (path, len(data)))
        return data

    def fits(self, data, e, base, whole):
        v = e["v"]
        if data is None or v is None:
            return data is None and v is None
        if "sha" in v:
            return hashlib.sha256(data).hexdigest() == v["sha"]
        want = content(v)
        if data == want:
            return True
        if whole or len(data) > len(want):
            return False
        sure = base["v"]["size"] if base["v"] and base["v"].get("seed") == v["seed"] else 0
        if len(data) < sure or data[:sure] != want[:sure]:
            return False
        return want.startswith(data) or (self.power and all(a == b or a == 0 for a, b in zip(data, want)))

    def path(self, p, h):
        promised = [i for i, e in enumerate(h) if e["d" if self.power else "a"]][-1]
        data = self.read(p)
        for i in range(promised, len(h)):
            whole = i == promised or h[i]["whole"]
            if self.fits(data, h[i], h[promised], whole):
                break
        else:
            self.fault("%s: %s; promised %s, %d begun since" % (p, "is not there" if data is None else "%d bytes" % len(data),
                                                                 h[promised]["v"], len(h) - 1 - promised))
        return data

    def run(self):
        there = {p: self.path(p, h) for p, h in self.history.items()}
        for r in self.renames:  # the last thing that was done with either name: it has one of the two
            h, to = self.history[r["p"]], self.history[r["to"]]
            if to[-1]["v"] == r["v"] and h[-1]["v"] is None and h[-2]["d"]:
                data = content(r["v"])
                if (there[r["p"]] == data) + (there[r["to"]] == data) != 1:
                    self.fault("%s -> %s: not exactly one of them is there" % (r["p"], r["to"]))
        for p, w in self.seen.items():
            if self.power and not w["d"]:
                continue
            data = self.read(p)
            if data is None or hashlib.sha256(data).hexdigest() != w["sha"]:
                self.fault("%s: an answer that was seen %s" % (p, "is gone" if data is None else "has changed"))
        for name, s in self.submitted.items():
            if self.power and not s["d"]:
                continue
            batch = "infer/app/in/" + name
            if s["archive"] and not os.path.exists(os.path.join(self.mnt, batch)):
                if not os.path.exists(os.path.join(self.mnt, batch + ".tar")):  # else it is yet to be unpacked
                    self.fault("%s.tar is gone" % batch)
            elif set(s["names"]) != set(os.listdir(os.path.join(self.mnt, batch))):
                self.fault("%s lacks some of its instances" % batch)
            elif s["archive"]:
                for n in s["names"]:
                    data = self.read("%s/%s" % (batch, n))
                    if data != content(member_of(name, n, len(data))) or len(data) >= 5000:
                        self.fault("%s/%s is not what the archive holds" % (batch, n))
        self.counts = (len(self.history), len(self.submitted), len(self.seen))
        self.compact(there)
        print("held: %d paths, %d batches, %d answers seen" % self.counts)
        return 1 if self.faults else 0

    def compact(self, there):
        """What is there now is what the next check starts from; files of old rounds go."""
        rounds = sorted({int(p.split("/")[2].split("-")[0]) for p in self.history})
        lines = []
        for p, data in there.items():
            round_no = int(p.split("/")[2].split("-")[0])
            if data is not None and round_no in rounds[-KEEP_ROUNDS:]:
                lines.append({"t": "o", "p": p, "v": {"sha": hashlib.sha256(data).hexdigest(), "size": len(data)}})
        for p, s in self.submitted.items():
            lines.append(s)
        for p, w in self.seen.items():
            if not self.power or w["d"]:
                lines.append(w)
        with open(self.manifest + ".new", "w") as f:
            for l in lines:
                f.write(json.dumps(l) + "\n")
        os.rename(self.manifest + ".new", self.manifest)
        for d in os.listdir(os.path.join(self.mnt, "datasets/m")):
            if d.split("-")[0].isdigit() and int(d.split("-")[0]) not in rounds[-KEEP_ROUNDS:]:
                shutil.rmtree(os.path.join(self.mnt, "datasets/m", d))

    def end(self):
        base = os.path.join(self.mnt, "infer/app")
        answered, started = 0, time.monotonic()
        batches = {n for n in os.listdir(base + "/in") if not n.startswith(".") and not n.endswith(".tar")}
        batches |= {n for n, s in self.submitted.items() if s["d"] or not self.power}
        for name in sorted(batches):
            while not os.path.exists("%s/in/%s" % (base, name)) and time.monotonic() < started + 60:
                time.sleep(0.05)  # an archive
            wanted = set(os.listdir("%s/in/%s" % (base, name)))
            until = started + 60
            while time.monotonic() < until:
                try:
                    # a further task of a batch would be another round of answers
                    rows = collections.Counter(os.path.basename(r["file"]) for r in csv.DictReader(open("%s/out/%s/results.csv" % (base, name))))
                    if set(rows) >= wanted and os.path.exists("%s/out/%s/task.json" % (base, name)):
                        break
                except FileNotFoundError:
                    pass
                time.sleep(0.05)
            else:
                self.fault("%s: not answered in time" % name)
                continue
            got = {n[:-5] for n in os.listdir("%s/out/%s" % (base, name)) if n.endswith(".png.json")}
            if got != wanted or set(rows) != wanted or max(rows.values(), default=1) != 1:
                self.fault("%s: %d instances, %d answers, %d rows" % (name, len(wanted), len(got), sum(rows.values())))
            for n in got:
                json.load(open("%s/out/%s/%s.json" % (base, name, n)))
            answered += len(got)
        for name, s in self.submitted.items():
            if (s["d"] or not self.power) and not os.path.isdir("%s/out/%s" % (base, name)):
                self.fault("%s was submitted and is forgotten" % name)
        print("answered exactly once: %d instances of %d batches" % (answered, len(self.submitted)))
        return 1 if self.faults else 0


def main():
    verb, mnt, manifest = sys.argv[1:4]
    if verb == "write":
        return Writer(mnt, manifest, *sys.argv[4:]).run()
    check = Check(mnt, manifest, len(sys.argv) > 4 and sys.argv[4] == "power")
    return check.run() if verb == "check" else check.end()


sys.exit(main())
