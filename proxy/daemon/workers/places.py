"""The places of all workers, in memory that they share: limits are exact without a message a session.

Each worker has a region that it alone writes: counters by key, one for each route and for each client of a route with a
session there.  How many there are altogether is the sum over the regions.  A worker counts itself first and looks then,
so that two who want the last place at the same moment may both see one too many but never both get it; who sees that
takes it back and tries again with a lock, which only decides who of them is it.  The lock is the kernel's (fcntl(2)),
so it goes with a process that dies; it is waited for `LOCK_TRIES` times, then the client is told to come again.  Giving
back needs no lock.

A worker that dies gives its places back: the parent, who gave it its region, empties it.  One that hangs keeps its
sessions, so it keeps their places.

A key is 64 bits of BLAKE2 with a secret of this service, so that no client can choose another one's counter or make
many fall together.  It lies in one of `BUCKETS` buckets of `DEPTH`; a client for whom there is no room in his is told
to come again (32,768 clients at a time are two a bucket).  The memory is a file without a name
and without holes filled: a region takes what is used of its 4 MiB.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final

BUCKETS: Final = 16384
DEPTH: Final = 16
LOCK_TRIES: Final = 20
LOCK_PAUSE: Final = 0.0001  # seconds; so a turn is held for 2 ms at most
_HEAD: Final = 65536  # bytes: the secret, then one for each region that says whether it is used
_SECRET: Final = 16
_ENTRIES: Final = BUCKETS * DEPTH
_REGION: Final = 2 * 8 * _ENTRIES  # bytes: keys, then counts
_WORD: Final = 8


class Region:
    """What the parent has of the places: it makes the memory, and gives and takes regions."""

    def __init__(self, count: int) -> None:
        """For at most `count` processes at a time."""
        self.count = count
        self.descriptor = os.memfd_create("ehlo-proxy-places", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _HEAD + count * _REGION)
        self._memory = mmap.mmap(self.descriptor, 0)
        self._memory[:_SECRET] = os.urandom(_SECRET)

    def give(self) -> int:
        """The number of a region that nobody has; -1 when all are used."""
        free = self._memory.find(b"\0", _SECRET, _SECRET + self.count)
        if free < 0:
            return -1
        self._memory[free] = 1
        return free - _SECRET

    def take_back(self, number: int) -> None:
        """Its process is gone, and with it its sessions."""
        self._memory.madvise(mmap.MADV_REMOVE, _HEAD + number * _REGION, _REGION)
        self._memory[_SECRET + number] = 0


class Counters:
    """The places of all routes as one worker sees them."""

    def __init__(self, descriptor: int, count: int, number: int, changed: Callable[[], None]) -> None:
        """`descriptor` is kept.  `changed` is called whenever a place was taken or given back here."""
        self.changed = changed
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _HEAD + count * _REGION)
        self._words = memoryview(self._memory).cast("Q")
        self._secret = bytes(self._memory[:_SECRET])
        self._count = count
        self._number = number
        self._used = b""
        self._starts: list[int] = []  # of the regions that are used
        self._places: dict[int, int] = {}  # where the counters of our own region are, by key

    def of(self, route: str) -> SharedPlaces:
        """Those of one route."""
        return SharedPlaces(self, route)

    def take(self, wanted: Sequence[tuple[int, int]]) -> int:
        """One more of each key, of so many at most (0: any number); -1, or which of them was full and none is taken."""
        full = self._try(wanted)
        if full >= 0:
            with self._locked() as locked:
                if locked:
                    full = self._try(wanted)
        return full

    def _try(self, wanted: Sequence[tuple[int, int]]) -> int:
        for at, (key, most) in enumerate(wanted):
            is_there = self._more(key)
            if not is_there or (most and self._sum(key) > most):
                for other, _most in wanted[: at + is_there]:
                    self.less(other)
                return at
        return -1

    def key(self, name: str) -> int:
        """Of a counter."""
        return int.from_bytes(blake2b(name.encode(), digest_size=8, key=self._secret).digest(), "little") or 1

    def _sum(self, key: int) -> int:
        words = self._words
        used = self._memory[_SECRET : _SECRET + self._count]
        if used != self._used:
            self._used = used
            self._starts = [(_HEAD + number * _REGION) // _WORD for number in range(self._count) if used[number]]
        bucket = key % BUCKETS * DEPTH
        found = 0
        for start in self._starts:
            start += bucket
            keys = words[start : start + DEPTH].tolist()
            if key in keys:
                found += words[start + keys.index(key) + _ENTRIES]
        return found

    def _more(self, key: int) -> bool:
        """Count one more of our own; False when there is no room."""
        words = self._words
        where = self._places.get(key)
        if where is not None:
            words[where + _ENTRIES] += 1
            return True
        start = (_HEAD + self._number * _REGION) // _WORD + key % BUCKETS * DEPTH
        counts = words[start + _ENTRIES : start + _ENTRIES + DEPTH].tolist()
        if 0 not in counts:
            return False
        # A key that was there before may still be, with no count: it must not be found twice.
        keys = words[start : start + DEPTH].tolist()
        where = start + (keys.index(key) if key in keys else counts.index(0))
        words[where] = key
        words[where + _ENTRIES] = 1
        self._places[key] = where
        return True

    def less(self, key: int) -> None:
        """One less of our own."""
        where = self._places.get(key)
        if where is None:
            return
        left = self._words[where + _ENTRIES] - 1
        self._words[where + _ENTRIES] = left
        if not left:
            del self._places[key]

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(LOCK_PAUSE)
                continue
            try:
                yield True
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
            return
        yield False


class SharedPlaces:
    """The places of one route; a `proxy.net.coming_in.admission.Places`."""

    __slots__ = ("_counters", "_of_route", "_route")

    def __init__(self, counters: Counters, route: str) -> None:
        self._counters = counters
        self._route = route
        self._of_route = counters.key(route)

    def take(self, client: str, most: int, most_of_client: int) -> str:
        """As `Places` says."""
        counters = self._counters
        of_client = counters.key(f"{self._route} {client}")
        full = counters.take(((self._of_route, most), (of_client, most_of_client)))
        if full >= 0:
            return ("route_full", "client_full")[full]
        counters.changed()
        return ""

    def give_back(self, client: str) -> None:
        """As `Places` says."""
        counters = self._counters
        counters.less(self._of_route)
        counters.less(counters.key(f"{self._route} {client}"))
        counters.changed()
