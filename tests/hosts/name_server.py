"""A name server in a thread of the test's process, on the host that the test has entered."""

from __future__ import annotations

import socket
import threading

from twisted.names import dns

Record = dns.Record_A | dns.Record_AAAA | dns.Record_MX


class NameServer:
    """Answers over UDP port 53, from `table`, until it is closed; says nothing while `dead`."""

    def __init__(self, address: str) -> None:
        self.table: dict[str, list[Record]] = {}
        self.ttl = 1
        self.dead = False
        self.asked: list[str] = []
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((address, 53))
        self._sock.settimeout(0.2)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._thread.join(10)
        self._sock.close()

    def _serve(self) -> None:
        while not self._closed:
            try:
                data, peer = self._sock.recvfrom(4096)
            except TimeoutError:
                continue
            question = dns.Message()
            question.fromStr(data)
            [query] = question.queries
            name = query.name.name.decode()
            self.asked.append(name)
            if self.dead:
                continue
            answer = dns.Message(question.id, answer=1, recDes=1, recAv=1)
            answer.queries = [query]
            if name in self.table:
                records = [record for record in self.table[name] if query.type == record.TYPE]
                answer.answers = [dns.RRHeader(name, query.type, dns.IN, self.ttl, record) for record in records]
            else:
                answer.rCode = dns.ENAME
            self._sock.sendto(answer.toStr(), peer)
