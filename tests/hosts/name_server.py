"""Name servers in a thread of the test's process, on the host that the test has entered."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from twisted.names import dns

from tests.hosts.network import Network

Record = dns.Record_A | dns.Record_AAAA | dns.Record_MX
From = tuple[str, int]


class UdpNames(ABC):
    """UDP port 53 of an address, until it is closed; what is done about a question is the heirs'."""

    def __init__(self, address: str) -> None:
        self._sock = bound(address, 53)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._thread.join(10)
        self._sock.close()

    @abstractmethod
    def asked_for(self, question: dns.Message, name: str, peer: From) -> None:
        """A question about `name` has come: answer it, or don't."""

    def send(self, answer: bytes, peer: From) -> None:
        """From the port that was asked; nothing once that is closed."""
        if not self._closed:
            self._sock.sendto(answer, peer)

    def _serve(self) -> None:
        while not self._closed:
            try:
                data, peer = self._sock.recvfrom(4096)
            except TimeoutError:
                continue
            question = dns.Message()
            question.fromStr(data)
            self.asked_for(question, question.queries[0].name.name.decode(), peer)


class NameServer(UdpNames):
    """Answers from `table`; says nothing while `dead`."""

    def __init__(self, address: str) -> None:
        self.table: dict[str, list[Record]] = {}
        self.ttl = 1
        self.dead = False
        self.asked: list[str] = []
        super().__init__(address)

    def asked_for(self, question: dns.Message, name: str, peer: From) -> None:
        self.asked.append(name)
        if self.dead:
            return
        answer = dns.Message(question.id, answer=1, recDes=1, recAv=1)
        answer.queries = [query] = question.queries
        if name in self.table:
            records = [record for record in self.table[name] if query.type == record.TYPE]
            answer.answers = [dns.RRHeader(name, query.type, dns.IN, self.ttl, record) for record in records]
        else:
            answer.rCode = dns.ENAME
        self.send(answer.toStr(), peer)


Names = TypeVar("Names", bound=UdpNames)


@contextmanager
def of_the_router(network: Network, second: str, make: Callable[[str], Names]) -> Iterator[Names]:
    """The router's name server; it runs on the server's host, which gets a second address."""
    network.server.inside(f"ip address add {second}/24 dev eth0")
    network.router.etc("resolv.conf", f"nameserver {network.SERVER}\n")
    network.router.etc("hosts", "127.0.0.1 localhost\n")
    with network.server.entered():
        names = make(network.SERVER)
    yield names
    names.close()


def bound(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.settimeout(0.2)
    return sock
