"""The host's own words on names: /etc/hosts and /etc/resolv.conf, read again when they change.

What can't be read or understood is passed over, as the C library does: hosts(5), resolv.conf(5).

Why not twisted.names: its hosts reads the whole file for each name, on the way of a session, and its client reads the
search domains and never looks there.
"""

from __future__ import annotations

import ipaddress
import os
import re
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

MAX_FILE = 1 << 20  # bytes; what is behind is not read
MAX_SERVERS = 3  # MAXNS of resolv.h
MAX_SEARCH = 6  # resolv.conf(5): "limited to six domains"

# RFC 1035 2.3.1, with the underscore of the field.
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\Z")

T = TypeVar("T")


class _File(ABC, Generic[T]):
    """A file, parsed when it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._content = self._parse([])

    def content(self) -> T:
        try:
            stat = os.stat(self._path)
            seen = stat.st_mtime_ns, stat.st_ino, stat.st_size
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._content = self._parse(file.read(MAX_FILE).splitlines())
                self._seen = seen
        except OSError:
            self._content, self._seen = self._parse([]), None
        return self._content

    @abstractmethod
    def _parse(self, lines: list[str]) -> T:
        """What the lines of the file say; of no lines when it cannot be read."""


class Hosts(_File[dict[str, tuple[str, ...]]]):
    """Names and their addresses."""

    def addresses(self, name: str) -> tuple[str, ...]:
        """Every address of a name, in the order of the file."""
        return self.content().get(name.rstrip(".").lower(), ())

    def _parse(self, lines: list[str]) -> dict[str, tuple[str, ...]]:
        table: dict[str, tuple[str, ...]] = {}
        for line in lines:
            address, *names = line.partition("#")[0].split() or [""]
            if is_address(address):
                for name in names:
                    known = table.get(name.lower(), ())
                    table[name.lower()] = known if address in known else (*known, address)
        return table


class ResolvConf(_File[tuple[tuple[str, ...], tuple[str, ...]]]):
    """The name servers, and the domains in which a name without a dot is looked for."""

    def servers(self) -> tuple[str, ...]:
        """Textual addresses; this host's own where the file names none."""
        return self.content()[0] or ("127.0.0.1",)

    def search(self) -> tuple[str, ...]:
        return self.content()[1]

    def _parse(self, lines: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        servers: list[str] = []
        search: list[str] = []
        for line in lines:
            word, *rest = line.split() or [""]
            if word == "nameserver" and rest and is_address(rest[0]):
                servers.append(rest[0])
            elif word == "domain":
                search = rest[:1]
            elif word == "search":
                search = rest
        return tuple(servers[:MAX_SERVERS]), tuple(domain.strip(".") for domain in search[:MAX_SEARCH])


def is_address(text: str) -> bool:
    """Is it a textual IPv4 or IPv6 address?"""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
