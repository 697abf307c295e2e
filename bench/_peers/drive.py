"""One store that a user could pick instead, in an environment of its own: numpy and that store.

    python drive.py build  NAME STORE ASKED CORPUS    makes the store; prints what it took
    python drive.py reopen NAME STORE ASKED           opens it, asks once; prints when it began and was done
    python drive.py serve  NAME STORE ASKED SOCKET    keeps it open and does what is asked through the socket

CORPUS: ``vectors`` float32 (rows, 384) of norm 1, ``texts`` joined by line ends. ASKED: ``marked`` bool
(rows,); ``tune`` and ``ask``, float32 (n, 384), with the exact answers of each, ``tune_search``,
``tune_filtered``, ``ask_search``, ``ask_filtered``, int64 (n, 10); ``fresh`` float32 (m, 384), to insert.
A peer is a module with: ``VERSION``, ``DURABLE``, ``EFFORTS`` (search settings from fast to thorough),
``build(path, vectors, texts, marked)``, ``reopen(path)`` -> handle, ``search(handle, query, k, effort,
marked_only)`` -> row numbers, ``insert(handle, number, vector, text)``, ``close(handle)``; where they are
needed ``efforts(handle)``, ``warm(handle, queries)``, ``processes(handle)``: ids of servers it has started.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np

K = 10
RECALL_WANTED = 0.98
_WARM = 4  # questions before each block, not timed: others have used the caches since
_WARM_S, _TUNE_S = 20.0, 10.0  # what a slow store may take for that
_HERE = Path(__file__).parent


class Served:
    """An open store and the questions."""

    def __init__(self, peer, path, asked):
        self.peer, self.asked = peer, asked
        self.rows = len(asked["marked"])
        self.handle = peer.reopen(path)
        self.efforts = peer.efforts(self.handle) if hasattr(peer, "efforts") else peer.EFFORTS
        self.effort = dict.fromkeys(("search", "filtered"), self.efforts[-1])

    def _search(self, query, kind):
        return self.peer.search(self.handle, query, K, self.effort[kind], kind == "filtered")

    def warm(self, kind):
        """Pages, caches, and what the store has to learn, before anything is timed."""
        self.effort[kind] = self.efforts[-1]
        self._asked("tune", kind, range(len(self.asked["tune"])), _WARM_S)
        if kind == "search" and hasattr(self.peer, "warm"):
            self.peer.warm(self.handle, self.asked["tune"])
        return {}

    def tune(self, kind):
        """The fastest setting with the wanted recall on the questions for tuning; else the most thorough."""
        for setting in self.efforts:
            self.effort[kind] = setting
            _, shares = self._asked("tune", kind, range(len(self.asked["tune"])), _TUNE_S)
            if np.mean(shares) >= RECALL_WANTED:
                break
        return {"effort": str(setting), "recall": float(np.mean(shares)), "questions": len(shares)}

    def settle(self, kind, effort):
        """Take the setting that was found before."""
        self.effort[kind] = next(setting for setting in self.efforts if str(setting) == effort)
        return {}

    def ask(self, kind, start, count, seconds_max):
        """Times of a block of questions, and the share of the true ten that each found."""
        self._asked("tune", kind, range(start % 100, start % 100 + _WARM), seconds_max)
        seconds, shares = self._asked("ask", kind, range(start, start + count), seconds_max)
        return {"seconds": seconds, "recall": shares, "effort": str(self.effort[kind])}

    def _asked(self, which, kind, numbers, seconds_max):
        seconds, shares, begun = [], [], time.perf_counter()
        for i in numbers:
            started = time.perf_counter()
            found = self._search(self.asked[which][i], kind)
            ended = time.perf_counter()
            seconds.append(ended - started)
            truth = self.asked[f"{which}_{kind}"][i].tolist()
            shares.append(len(set(found) & set(truth)) / len(truth))
            if ended - begun > seconds_max:
                break
        return seconds, shares

    def insert(self, start, count):
        seconds = []
        for i in range(start, start + count):
            text = f"a memory that came later, number {i}"
            started = time.perf_counter()
            self.peer.insert(self.handle, self.rows + i, self.asked["fresh"][i], text)
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds}

    def memory(self):
        """MiB of this process and of those that the store has started; what is shared counts once."""
        pids = [os.getpid(), *(self.peer.processes(self.handle) if hasattr(self.peer, "processes") else ())]
        return {"mib": sum(_pss(pid) for pid in pids)}


def _pss(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def build(peer, path, asked, corpus):
    with np.load(corpus) as stored:
        rows = len(asked["marked"])
        vectors = stored["vectors"][:rows]
        texts = stored["texts"].tobytes().decode().split("\n")[:rows]
    started = time.perf_counter()
    peer.build(path, vectors, texts, asked["marked"])
    seconds = time.perf_counter() - started
    print(json.dumps({"version": peer.VERSION, "durable": peer.DURABLE, "rows": rows, "build_s": seconds}))


def reopen(peer, path, asked, begun):
    handle = peer.reopen(path)
    opened = time.monotonic()
    found = peer.search(handle, asked["ask"][0], K, peer.EFFORTS[0], False)
    answered = time.monotonic()
    print(json.dumps({"begun": begun, "opened": opened, "answered": answered, "found": len(found)}))
    sys.stdout.flush()
    peer.close(handle)


def serve(peer, path, asked, place):
    served = Served(peer, path, asked)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen(1)
        while True:
            caller, _ = door.accept()
            try:
                with caller, caller.makefile("rw", encoding="utf-8") as lines:
                    asked_for = json.loads(lines.readline())
                    name = asked_for.pop("do")
                    if name == "close":
                        peer.close(served.handle)
                        return
                    lines.write(json.dumps(getattr(served, name)(**asked_for)) + "\n")
            except OSError:  # the caller did not wait
                continue


def main():
    begun = time.monotonic()
    work, name, path, asked_at, *more = sys.argv[1:]
    sys.path.insert(0, str(_HERE))
    with np.load(asked_at) as stored:
        asked = dict(stored)
    peer = importlib.import_module(f"peer_{name}")
    if work == "build":
        build(peer, path, asked, *more)
    elif work == "reopen":
        reopen(peer, path, asked, begun)
    else:
        serve(peer, path, asked, *more)


if __name__ == "__main__":
    main()
