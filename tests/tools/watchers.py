#!/usr/bin/env python3
"""
watchers.py KIND DIR: what a program that waits for results sees. Prints a line for each event below DIR:

    NEW PATH ok|BAD      a file is there now under this name; BAD: what it holds at this moment is not whole
    GONE PATH

KIND: lines (reads lines "… EVENT PATH" of an inotify tool), watchdog (Python's, its inotify observer), watchman.
"""
import json
import os
import socket
import sys
import time


def tell(kind, path):
    path = os.fspath(path)
    name = os.path.basename(path)
    if kind == "GONE":
        print("GONE", path, flush=True)
        return
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        whole = text.endswith("\n")
        if name.endswith(".json"):
            json.loads(text)
    except (OSError, ValueError):
        whole = False
    print("NEW", path, "ok" if whole else "BAD", flush=True)


def lines(_):
    for line in sys.stdin:
        words = line.split()
        if len(words) < 2:
            print("ready", flush=True)
        elif "ISDIR" in words[-2]:
            continue
        elif "DELETE" in words[-2]:
            tell("GONE", words[-1])
        else:
            tell("NEW", words[-1])


def watchdog(directory):
    from watchdog.events import FileSystemEventHandler
    from watchdog.observers.inotify import InotifyObserver

    class Handler(FileSystemEventHandler):
        def on_moved(self, event):
            if not event.is_directory:
                tell("NEW", event.dest_path)

        def on_created(self, event):
            if not event.is_directory:
                tell("NEW", event.src_path)

        def on_deleted(self, event):
            if not event.is_directory:
                tell("GONE", event.src_path)

    observer = InotifyObserver()
    observer.schedule(Handler(), directory, recursive=True)
    observer.start()
    print("ready", flush=True)
    while True:
        time.sleep(3600)


def watchman(directory):
    server = socket.socket(socket.AF_UNIX)
    for _ in range(100):
        try:
            server.connect(os.environ["WATCHMAN_SOCK"])
            break
        except OSError:
            time.sleep(0.05)
    stream = server.makefile("rw")

    def send(*command):
        stream.write(json.dumps(command) + "\n")
        stream.flush()

    send("watch", directory)
    stream.readline()
    send("subscribe", directory, "results", {"expression": ["type", "f"], "fields": ["name", "exists"]})
    known = set()
    for line in stream:
        message = json.loads(line)
        if "error" in message:
            sys.exit("watchman: " + message["error"])
        if "subscribe" in message:
            print("ready", flush=True)
        for file in message.get("files", []):
            # It tells of every change; a deletion of what it never told of (a hidden name) is none.
            if file["exists"]:
                known.add(file["name"])
                tell("NEW", os.path.join(directory, file["name"]))
            elif file["name"] in known:
                tell("GONE", os.path.join(directory, file["name"]))


{"lines": lines, "watchdog": watchdog, "watchman": watchman}[sys.argv[1]](sys.argv[2])
