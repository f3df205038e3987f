"""A name server that misbehaves, in a way that the first label of a name says, until it is told to be honest.

dead.example       no answer
slow.example       an answer after a second
servfail.example, refused.example
garbage.example    bytes that are no message
other-id.example   an answer to another question of ours: a forged one, with `evil`
other-name.example an answer about another name, with `evil`
unasked.example    a record of another name beside the question's, with `evil`
other-port.example a forged answer with `evil` from another port, then the right one
forged.example     a forged answer with another id and `evil`, then the right one
cut.example        an answer that is cut, and no TCP to ask again
loop.example       a CNAME that leads back to itself
empty.example      no address
nowhere.example    no such name
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

from twisted.names import dns

from tests.hosts.name_server import From, UdpNames, bound

SLOW = 1.0  # seconds


class Liar(UdpNames):
    """Answers over UDP port 53 of `address`: `good` for every name below example, or `evil` in a forged answer."""

    def __init__(self, address: str, good: str, evil: str) -> None:
        self.good = good
        self.evil = evil
        self.honest = False
        self.now: dict[str, tuple[str, ...]] = {}  # a name's addresses in place of `good`
        self.asked: Counter[str] = Counter()
        self._other = bound(address, 0)
        super().__init__(address)

    def close(self) -> None:
        super().close()
        self._other.close()

    def asked_for(self, question: dns.Message, name: str, peer: From) -> None:
        self.asked[name] += 1
        how = "" if self.honest else name.partition(".")[0]
        if how == "slow":
            threading.Timer(SLOW, self.send, (self._answer(question, self.good), peer)).start()
            return
        for answer, sock in self._answers(question, how):
            sock.sendto(answer, peer)

    def _answers(self, question: dns.Message, how: str) -> Iterator[tuple[bytes, socket.socket]]:
        name = question.queries[0].name.name.decode()
        right = self._answer(question, *self.now.get(name, (self.good,)))
        forged = self._answer(question, self.evil)
        other_id = bytes([forged[0] ^ 0x55]) + forged[1:]
        match how:
            case "dead":
                return
            case "servfail" | "refused" | "nowhere":
                code = {"servfail": dns.ESERVER, "refused": dns.EREFUSED, "nowhere": dns.ENAME}[how]
                yield self._answer(question, code=code), self._sock
            case "garbage":
                yield b"\xff" * 5, self._sock
                yield question.id.to_bytes(2) + b"\x81\x80\xff\xff\xff\xff\xff\xff\xff\xff" + b"\xc0" * 50, self._sock
            case "other-id":
                yield other_id, self._sock
            case "other-name":
                yield self._answer(question, self.evil, about="somebody-else.example"), self._sock
            case "unasked":
                yield self._answer(question, self.evil, record_of="somebody-else.example"), self._sock
            case "other-port":
                yield forged, self._other
                time.sleep(0.05)
                yield right, self._sock
            case "forged":
                yield other_id, self._sock
                time.sleep(0.05)
                yield right, self._sock
            case "cut":
                yield self._answer(question, cut=True), self._sock
            case "loop":
                yield self._answer(question, alias=name), self._sock
            case "empty":
                yield self._answer(question), self._sock
            case _:
                yield right, self._sock

    def _answer(
        self,
        question: dns.Message,
        *addresses: str,
        code: int = 0,
        cut: bool = False,
        about: str = "",
        record_of: str = "",
        alias: str = "",
    ) -> bytes:
        answer = dns.Message(question.id, answer=1, recDes=1, recAv=1, rCode=code, trunc=int(cut))
        query = question.queries[0]
        answer.queries = [dns.Query(about.encode(), query.type) if about else query]
        name = record_of or about or query.name.name.decode()
        if alias:
            answer.answers = [dns.RRHeader(name, dns.CNAME, dns.IN, 1, dns.Record_CNAME(alias, 1))]
        for address in addresses:
            record = dns.Record_AAAA(address, 1) if ":" in address else dns.Record_A(address, 1)
            if query.type == record.TYPE:
                answer.answers.append(dns.RRHeader(name, query.type, dns.IN, 1, record))
        return answer.toStr()
