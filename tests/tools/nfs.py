#!/usr/bin/env python3
"""
A small NFS client on Debian's libnfs: what its command-line tools (nfs-ls, nfs-cat, nfs-cp) have no command for.

    nfs.py VERSION EXPORT COMMAND ARGUMENT... [-- COMMAND ARGUMENT...]...

    mkdir PATH | put FILE PATH | rename PATH PATH | unlink PATH | rmdir PATH | ls PATH | cat PATH

NFSv4 writes go in pieces of 2,000 bytes: libnfs 4.0 has 4,096 bytes for a whole NFSv4 compound and fails in itself
beyond ("Failed to encode COMPOUND4args"), so that its nfs-cp can't write more either, to any server.
"""
import ctypes
import os
import sys

NFS = ctypes.CDLL("libnfs.so.13")
NFS.nfs_init_context.restype = ctypes.c_void_p
NFS.nfs_get_error.restype = ctypes.c_char_p
NFS.nfs_opendir.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
NFS.nfs_readdir.restype = ctypes.c_void_p


class Dirent(ctypes.Structure):  # the beginning of struct nfsdirent
    _fields_ = [("next", ctypes.c_void_p), ("name", ctypes.c_char_p), ("inode", ctypes.c_uint64)]


class Client:
    def __init__(self, version, export):
        self.context = ctypes.c_void_p(NFS.nfs_init_context())
        self.version = version
        self.call("nfs_set_version", version)
        NFS.nfs_set_timeout(self.context, 10000)
        self.call("nfs_mount", b"127.0.0.1", export.encode())

    def call(self, function, *args):
        r = getattr(NFS, function)(self.context, *args)
        if r < 0:
            error = NFS.nfs_get_error(self.context) or b""
            raise OSError(-r, f"NFSv{self.version} {function}: {error.decode(errors='replace')}")
        return r

    def open(self, path, flags):
        handle = ctypes.c_void_p()
        self.call("nfs_open", path.encode(), flags, ctypes.byref(handle))
        return handle

    def put(self, source, path):
        with open(source, "rb") as f:
            data = f.read()
        piece = 2000 if self.version == 4 else 1 << 20
        handle = self.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            n = self.call("nfs_pwrite", handle, ctypes.c_uint64(at), ctypes.c_uint64(len(part)), part)
            if n != len(part):
                raise OSError(f"{path}: {n} of {len(part)} bytes were written")
        self.call("nfs_fsync", handle)
        self.call("nfs_close", handle)

    def cat(self, path):
        handle = self.open(path, os.O_RDONLY)
        buf = ctypes.create_string_buffer(65536)
        at = 0
        while n := self.call("nfs_pread", handle, ctypes.c_uint64(at), ctypes.c_uint64(len(buf)), buf):
            sys.stdout.buffer.write(buf.raw[:n])
            at += n
        self.call("nfs_close", handle)

    def ls(self, path):
        directory = ctypes.c_void_p()
        self.call("nfs_opendir", path.encode(), ctypes.byref(directory))
        while entry := NFS.nfs_readdir(self.context, directory):
            name = Dirent.from_address(entry).name.decode()
            if name not in (".", ".."):
                print(name)
        NFS.nfs_closedir(self.context, directory)

    def mkdir(self, path):
        self.call("nfs_mkdir", path.encode())

    def rmdir(self, path):
        self.call("nfs_rmdir", path.encode())

    def unlink(self, path):
        self.call("nfs_unlink", path.encode())

    def rename(self, old, new):
        self.call("nfs_rename", old.encode(), new.encode())


def main(args):
    client = Client(int(args[0]), args[1])
    command = []
    for word in args[2:] + ["--"]:
        if word != "--":
            command.append(word)
            continue
        getattr(client, command[0])(*command[1:])
        command = []


try:
    main(sys.argv[1:])
except OSError as e:
    sys.exit(f"nfs.py: {e}")
