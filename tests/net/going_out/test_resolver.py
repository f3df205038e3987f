"""Names through name servers on loopback: good, dead, slow, lying, failing; and the last good answer in all that."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.names import dns

from proxy.net.going_out.names import dns_query
from proxy.net.going_out.names import resolver as resolver_module
from proxy.net.going_out.names.dns_answer import records_of
from proxy.net.going_out.names.dns_message import question, read_answer
from proxy.net.going_out.names.name_files import Hosts, ResolvConf
from proxy.net.going_out.names.resolver import Resolver
from proxy.net.going_out.names.wanted import Exchange, NotResolved
from tests.own_reactor import OwnReactor

Change = Callable[[dns.Message], None]


class NameServer:
    """One UDP and TCP port on loopback, answering from a table; `behaviour` says how badly."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.table: dict[tuple[str, int], list[tuple[str, Any]]] = {}
        self.ttl = 300
        self.silent = False
        self.silent_about: set[int] = set()
        self.code = 0
        self.truncated = False
        self.changed: Change = lambda message: None
        self.asked: list[tuple[str, int]] = []
        self.held: list[Callable[[], None]] = []
        self.hold = False
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.tcp.setblocking(False)
        self.address = self.tcp.getsockname()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.udp.bind(self.address)
        self.streams: list[socket.socket] = []
        self.asked_by_tcp = 0
        self.from_ports: set[int] = set()

    def put(self, name: str, *records: Any, owner: str = "") -> None:
        for record in records:
            key = (name, dns.CNAME if isinstance(record, dns.Record_CNAME) else record.TYPE)
            self.table.setdefault(key, []).append((owner or name, record))

    def poll(self) -> None:
        """Answer what has come."""
        while True:
            try:
                data, peer = self.udp.recvfrom(4096)
            except BlockingIOError:
                break
            self.from_ports.add(peer[1])
            answer = self._answer(data, self.truncated)
            if answer is not None:
                send = lambda answer=answer, peer=peer: self.udp.sendto(answer, peer)  # noqa: E731  # short
                self.held.append(send) if self.hold else send()
        try:
            stream, _ = self.tcp.accept()
            stream.setblocking(False)
            self.streams.append(stream)
            self.asked_by_tcp += 1
        except BlockingIOError:
            pass
        for stream in list(self.streams):
            try:
                data = stream.recv(4096)
            except BlockingIOError:
                continue
            answer = self._answer(data[2:], False) or b""
            stream.send((len(answer).to_bytes(2, "big") + answer)[:1])
            stream.send((len(answer).to_bytes(2, "big") + answer)[1:])
            stream.close()
            self.streams.remove(stream)

    def close(self) -> None:
        for sock in [self.udp, self.tcp, *self.streams]:
            sock.close()

    def release(self) -> None:
        held, self.held = self.held, []
        for send in held:
            send()

    def _answer(self, data: bytes, truncated: bool) -> bytes | None:
        question = dns.Message()
        question.fromStr(data)
        [query] = question.queries
        name = query.name.name.decode()
        self.asked.append((name, query.type))
        if self.silent or query.type in self.silent_about:
            return None
        message = dns.Message(question.id, answer=1, recDes=1, recAv=1, rCode=self.code)
        message.maxSize = 0
        message.queries = [query]
        if not self.code and not truncated:
            found = self._records(name, query.type)
            message.answers = [dns.RRHeader(owner, record.TYPE, dns.IN, self.ttl, record) for owner, record in found]
            if not found and not any(known == name for known, _ in self.table):
                message.rCode = dns.ENAME
        message.trunc = int(truncated)
        self.changed(message)
        packed: bytes = message.toStr()
        return packed

    def _records(self, name: str, kind: int) -> list[tuple[str, Any]]:
        alias = self.table.get((name, dns.CNAME))
        if alias:
            return alias + self._records(alias[0][1].name.name.decode(), kind)
        return self.table.get((name, kind), [])


class Lab(OwnReactor):
    """Name servers, and a resolver that asks them."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.servers: list[NameServer] = []
        self.hosts = directory / "hosts"
        self.resolv_conf = directory / "resolv.conf"
        self.server = self.add_server()
        self.resolver = self.make()

    def add_server(self) -> NameServer:
        server = NameServer(self)
        self.servers.append(server)
        return server

    def make(self, *servers: tuple[str, int]) -> Resolver:
        return Resolver(
            self.poller,
            self.deadlines,
            servers or [self.server.address],
            str(self.hosts),
            str(self.resolv_conf),
        )

    def wait(self, lookup: Deferred[Any], limit: float = 5.0) -> Any:
        results: list[Any] = []
        lookup.addBoth(results.append)

        def polled() -> bool:
            for server in self.servers:
                server.poll()
            return bool(results)

        self.run(polled, limit)
        if hasattr(results[0], "value"):
            return results[0].value
        return results[0]

    def addresses(self, name: str, timeout: float = 5.0) -> Any:
        return self.wait(self.resolver.addresses(name, timeout))

    def exchanges(self, name: str, timeout: float = 5.0) -> Any:
        return self.wait(self.resolver.exchanges(name, timeout))

    def close(self) -> None:
        self.resolver.stop()
        for server in self.servers:
            server.close()
        super().close()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(dns_query, "RETRY_AFTER", 0.15)
    monkeypatch.setattr(resolver_module, "STALE_AFTER", 0.3)
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def is_not_resolved(result: object, words: str) -> bool:
    return isinstance(result, NotResolved) and words in str(result)


# Good answers.


def test_both_families_are_found_and_kept_while_they_are_fresh(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"), dns.Record_A("192.0.2.2"), dns.Record_AAAA("2001:db8::1"))
    assert set(lab.addresses("mx.example")) == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    assert sorted(lab.server.asked) == [("mx.example", dns.A), ("mx.example", dns.AAAA)]
    assert set(lab.addresses("MX.example")) == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    assert len(lab.server.asked) == 2
    lab.ahead += 301
    lab.addresses("mx.example")
    assert len(lab.server.asked) == 4


def test_a_name_with_one_family_is_resolved_and_the_missing_one_kept_too(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    assert lab.addresses("mx.example") == lab.addresses("mx.example") == ("192.0.2.1",)
    assert len(lab.server.asked) == 2


def test_the_family_that_is_late_is_not_waited_for(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    lab.server.silent_about = {dns.AAAA}
    lookup = lab.resolver.addresses("mx.example", 5.0)
    start = lab.deadlines.now()
    assert lab.wait(lookup) == ("192.0.2.1",)
    assert lab.deadlines.now() - start < 0.2


def test_aliases_are_followed_and_what_nobody_asked_for_is_left(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_CNAME("real.example"))
    lab.server.put("real.example", dns.Record_A("192.0.2.1"), ttl_record := dns.Record_A("192.0.2.66"))
    lab.server.table[("real.example", dns.A)][1] = ("other.example", ttl_record)
    assert lab.addresses("mx.example") == ("192.0.2.1",)


def test_an_alias_that_the_answer_does_not_resolve_is_asked_for(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_CNAME("real.example"))
    lab.server.put("real.example", dns.Record_A("192.0.2.1"))

    def only_the_alias(message: dns.Message) -> None:
        if message.queries[0].name.name == b"mx.example":
            message.answers = [answer for answer in message.answers if answer.type == dns.CNAME]

    lab.server.changed = only_the_alias
    assert lab.addresses("mx.example") == ("192.0.2.1",)


def test_an_alias_that_leads_back_to_itself_ends(lab: Lab) -> None:
    def loop(message: dns.Message) -> None:
        message.rCode = 0
        ring = [("a.example", "b.example"), ("b.example", "a.example")]
        message.answers = [dns.RRHeader(a, dns.CNAME, dns.IN, 60, dns.Record_CNAME(b)) for a, b in ring]

    lab.server.changed = loop
    assert is_not_resolved(lab.addresses("a.example"), "no address")
    assert len(lab.server.asked) < 30


def test_exchanges_are_read_and_those_without_a_host_name_left_out(lab: Lab) -> None:
    lab.server.put(
        "example.com", dns.Record_MX(10, "MX1.example.com"), dns.Record_MX(20, "mx2.example.com"),
        dns.Record_MX(5, "192.0.2.1"), dns.Record_MX(1, "a b.example.com"), dns.Record_MX(0, ""),
    )  # fmt: skip
    assert lab.exchanges("example.com") == (Exchange(10, "mx1.example.com"), Exchange(20, "mx2.example.com"))


def test_a_domain_without_exchanges_is_its_own(lab: Lab) -> None:
    lab.server.put("example.com", dns.Record_A("192.0.2.1"))
    assert lab.exchanges("example.com") == (Exchange(0, "example.com"),)


def test_a_null_mx_is_an_answer(lab: Lab) -> None:
    lab.server.put("example.com", dns.Record_MX(0, ""))
    assert is_not_resolved(lab.exchanges("example.com"), "null MX")


def test_no_such_domain_has_no_implicit_exchange(lab: Lab) -> None:
    assert is_not_resolved(lab.exchanges("example.com"), "no such name")
    assert is_not_resolved(lab.exchanges("no domain at all"), "no such name")


def test_a_name_that_does_not_exist_or_has_no_address(lab: Lab) -> None:
    assert is_not_resolved(lab.addresses("nowhere.example"), "no such name")
    lab.server.put("mail.example", dns.Record_MX(1, "x.example"))
    assert is_not_resolved(lab.addresses("mail.example"), "no address")
    assert is_not_resolved(lab.addresses("-.-/x"), "no such name")


def test_a_long_answer_comes_by_tcp(lab: Lab) -> None:
    lab.server.put("mx.example", *[dns.Record_A(f"192.0.2.{n}") for n in range(60)])
    lab.server.truncated = True
    assert len(lab.addresses("mx.example")) == 60
    assert lab.server.asked_by_tcp == 2


@pytest.mark.parametrize("fault", ["closes", "lies", "refuses"])
def test_a_name_server_that_fails_by_tcp_is_left_for_the_next(lab: Lab, fault: str) -> None:
    good = lab.add_server()
    good.put("mx.example", dns.Record_A("192.0.2.1"))
    lab.server.truncated = True
    lab.server.put("mx.example", dns.Record_A("192.0.2.9"))
    answer = lab.server._answer

    def bad(data: bytes, truncated: bool) -> bytes | None:
        return answer(data, truncated) if truncated else b"\xff" * 30 if fault == "lies" else b""

    lab.server._answer = bad  # type: ignore[method-assign]  # only over TCP
    if fault == "refuses":
        lab.server.tcp.shutdown(socket.SHUT_RDWR)
        lab.server.tcp.close()
        lab.server.tcp = socket.create_server(("127.0.0.1", 0))
        lab.server.tcp.setblocking(False)
    lab.resolver = lab.make(lab.server.address, good.address)
    assert lab.addresses("mx.example") == ("192.0.2.1",)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=300)
def test_no_bytes_from_a_name_server_raise(data: bytes, looks_right: bool) -> None:
    head = b"\0\x07\x81\x80\0\1\0\3\0\0\0\0\1a\7example\0\0\1\0\1"
    answer = read_answer(head + data if looks_right else data, question(7, "a.example", 1))
    assert looks_right <= (answer is not None)
    if answer is not None:
        for kind in (dns.A, dns.AAAA, dns.MX):
            assert records_of(answer, "a.example", kind)[2] >= 0


# Bad name servers.


def test_what_is_not_an_answer_to_our_question_is_ignored(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    lies: list[Change] = [
        lambda message: setattr(message, "id", message.id ^ 1),
        lambda message: setattr(message, "answer", 0),
        lambda message: setattr(message, "queries", []),
        lambda message: setattr(message, "queries", [dns.Query("other.example", message.queries[0].type)]),
        lambda message: setattr(message, "queries", [dns.Query("mx.example", dns.TXT)]),
    ]
    truth = lab.server._answer

    def lie_first(data: bytes, truncated: bool) -> bytes | None:
        [query] = (question := dns.Message(), question.fromStr(data))[0].queries
        _, peer = lab.server.udp, (lab.server.address[0], lab.last_port)  # type: ignore[attr-defined]  # set below
        for lie in lies:
            lab.server.changed = lie
            lab.server.udp.sendto(truth(data, truncated) or b"", peer)
        lab.server.udp.sendto(b"\xff" * 40, peer)
        lab.server.udp.sendto(b"", peer)
        lab.server.changed = lambda message: None
        assert query
        return truth(data, truncated)

    receive = lab.server.udp.recvfrom

    class Spy:
        def recvfrom(self, size: int) -> Any:
            data, peer = receive(size)
            lab.last_port = peer[1]  # type: ignore[attr-defined]  # for the lies
            return data, peer

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    real = lab.server.udp
    lab.server.udp = Spy()  # type: ignore[assignment]  # the same socket
    lab.server._answer = lie_first  # type: ignore[method-assign]  # lies before the truth
    assert lab.addresses("mx.example") == ("192.0.2.1",)


def test_an_answer_from_elsewhere_never_arrives(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    lab.server.hold = True
    lookup = lab.resolver.addresses("mx.example", 5.0)
    lab.turns(0.05)
    lab.server.poll()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        attacker.bind(("127.0.0.1", 0))
        for port in lab.server.from_ports:
            for number in range(0, 65536, 64):
                attacker.sendto(number.to_bytes(2, "big") + bytes(10), ("127.0.0.1", port))
    assert len(lab.server.from_ports) == 2  # each question from its own port
    lab.server.hold = False
    lab.server.release()
    assert lab.wait(lookup) == ("192.0.2.1",)


def test_the_next_name_server_is_asked_when_one_is_silent_fails_or_is_not_there(lab: Lab) -> None:
    good = lab.add_server()
    good.put("a.example", dns.Record_A("192.0.2.1"))
    good.put("b.example", dns.Record_A("192.0.2.2"))
    good.put("c.example", dns.Record_A("192.0.2.3"))
    lab.resolver = lab.make(lab.server.address, good.address)
    lab.server.silent = True
    assert lab.addresses("a.example") == ("192.0.2.1",)
    lab.server.silent = False
    lab.server.code = dns.ESERVER
    assert lab.addresses("b.example") == ("192.0.2.2",)
    lab.server.close()
    lab.servers.remove(lab.server)
    assert lab.addresses("c.example") == ("192.0.2.3",)
    lab.resolver.stop()


def test_when_all_name_servers_fail_nobody_waits(lab: Lab) -> None:
    lab.server.code = dns.ESERVER
    start = lab.deadlines.now()
    assert is_not_resolved(lab.addresses("mx.example"), "SERVFAIL")
    lab.server.code = dns.EREFUSED
    assert is_not_resolved(lab.exchanges("mx.example"), "REFUSED")
    assert lab.deadlines.now() - start < 0.5
    lab.resolver = lab.make(("127.0.0.1", 1), ("255.255.255.255", 53))
    assert is_not_resolved(lab.addresses("mx.example"), "name server")


def test_a_silent_name_server_ends_with_the_time_out_and_is_asked_again_until_then(lab: Lab) -> None:
    lab.server.silent = True
    start = lab.deadlines.now()
    assert is_not_resolved(lab.addresses("mx.example", 0.5), "no answer")
    assert 0.45 < lab.deadlines.now() - start < 0.8
    assert len(lab.server.asked) >= 4


# The last good answer.


@pytest.mark.parametrize("fault", ["silent", "SERVFAIL", "gone"])
def test_the_last_good_answer_serves_while_the_name_servers_are_dead(lab: Lab, fault: str) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    lab.server.put("example", dns.Record_MX(1, "mx.example"))
    lab.addresses("mx.example")
    lab.exchanges("example")
    lab.ahead += 400
    if fault == "silent":
        lab.server.silent = True
    elif fault == "SERVFAIL":
        lab.server.code = dns.ESERVER
    else:
        lab.server.close()
        lab.servers.clear()
    start = lab.deadlines.now()
    assert lab.addresses("mx.example") == ("192.0.2.1",)
    assert lab.exchanges("example") == (Exchange(1, "mx.example"),)
    assert lab.deadlines.now() - start < 1.0
    # While that lasts, nobody waits again.
    start = lab.deadlines.now()
    assert lab.resolver.addresses("mx.example", 5).called
    assert lab.resolver.exchanges("example", 5).called
    assert lab.deadlines.now() - start < 0.1
    lab.turns(0.1)
    lab.ahead += 23 * 3600
    assert lab.addresses("mx.example", 1) == ("192.0.2.1",)
    lab.ahead += 3600
    assert isinstance(lab.addresses("mx.example", 0.5), NotResolved)


def test_when_the_name_servers_are_back_so_are_new_answers(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    lab.addresses("mx.example")
    lab.ahead += 400
    lab.server.code = dns.ESERVER
    assert lab.addresses("mx.example") == ("192.0.2.1",)
    lab.server.code = 0
    lab.server.table[("mx.example", dns.A)] = [("mx.example", dns.Record_A("192.0.2.9"))]
    lab.ahead += 31
    assert lab.addresses("mx.example") == ("192.0.2.9",)


@pytest.mark.parametrize("end", ["no such name", "null MX"])
def test_no_such_name_and_a_null_mx_replace_the_last_good_answer_at_once(lab: Lab, end: str) -> None:
    lab.server.ttl = 0
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    lab.server.put("example", dns.Record_MX(1, "mx.example"))
    assert lab.exchanges("example") == (Exchange(1, "mx.example"),)
    lab.addresses("mx.example")
    lab.server.table.clear()
    if end == "null MX":
        lab.server.put("example", dns.Record_MX(0, ""))
    assert is_not_resolved(lab.exchanges("example"), end)
    assert is_not_resolved(lab.addresses("mx.example"), "no such name")
    lab.server.silent = True
    assert is_not_resolved(lab.addresses("mx.example", 0.3), "no answer")
    lab.ahead += 31
    assert is_not_resolved(lab.exchanges("example", 0.3), "null MX" if end == "null MX" else "no answer")


# Several sessions.


def test_sessions_that_want_the_same_name_share_one_question(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    lookups = [lab.resolver.addresses("mx.example", 5.0) for _ in range(20)]
    for lookup in lookups:
        assert lab.wait(lookup) == ("192.0.2.1",)
    assert len(lab.server.asked) == 2


def test_one_that_goes_away_takes_nothing_from_the_others(lab: Lab) -> None:
    lab.server.put("mx.example", dns.Record_A("192.0.2.1"))
    first, second, third = (lab.resolver.addresses("mx.example", 5.0) for _ in range(3))
    third.addErrback(lambda failure: None)
    third.cancel()
    first.addErrback(lambda failure: None)
    first.cancel()
    assert lab.wait(second) == ("192.0.2.1",)


def test_a_dead_name_keeps_no_other_waiting(lab: Lab) -> None:
    lab.server.put("good.example", dns.Record_A("192.0.2.1"))
    lab.server.hold = True
    slow = lab.resolver.addresses("slow.example", 5.0)
    lab.turns(0.05)
    lab.server.poll()
    lab.server.hold = False
    start = lab.deadlines.now()
    assert lab.addresses("good.example") == ("192.0.2.1",)
    assert lab.deadlines.now() - start < 0.2
    assert not slow.called
    lab.server.release()
    assert isinstance(lab.wait(slow), NotResolved)


def test_each_waits_no_longer_than_he_wants_to(lab: Lab) -> None:
    lab.server.silent = True
    patient = lab.resolver.addresses("mx.example", 1.0)
    hasty = lab.resolver.addresses("mx.example", 0.2)
    start = lab.deadlines.now()
    assert is_not_resolved(lab.wait(hasty), "no answer")
    assert lab.deadlines.now() - start < 0.5
    assert not patient.called
    assert is_not_resolved(lab.wait(patient), "no answer")


def test_only_so_many_names_are_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "MAX_NAMES", 6)
    for number in range(10):
        lab.server.put(f"mx{number}.example", dns.Record_A("192.0.2.1"))
        lab.addresses(f"mx{number}.example")
    assert len(lab.resolver._known) == 6


# The host's own files.


def test_the_hosts_file_goes_first_and_is_read_again_when_it_changes(lab: Lab) -> None:
    lab.hosts.write_text("192.0.2.1 MX.example mx # comment\n2001:db8::1 mx.example\nbad line\n\n192.0.2.9\n")
    assert lab.addresses("mx.example") == ("192.0.2.1", "2001:db8::1")
    assert lab.addresses("mx") == ("192.0.2.1",)
    lab.hosts.write_text("192.0.2.22 mx.example\n")
    os.utime(lab.hosts, (1, 1))
    assert lab.addresses("mx.example") == ("192.0.2.22",)
    assert lab.server.asked == []
    lab.hosts.unlink()
    assert is_not_resolved(lab.addresses("mx.example"), "no such name")


def test_a_name_without_a_dot_is_looked_for_in_the_search_domains(lab: Lab) -> None:
    lab.resolv_conf.write_text("search one.example two.example\nnameserver 192.0.2.53\n")
    lab.server.put("mx.two.example", dns.Record_A("192.0.2.1"))
    lab.server.put("single", dns.Record_A("192.0.2.2"))
    assert lab.addresses("mx") == ("192.0.2.1",)
    assert lab.addresses("single") == ("192.0.2.2",)
    assert is_not_resolved(lab.addresses("mx.three"), "no such name")
    assert ("mx.three.one.example", dns.A) not in lab.server.asked


def test_resolv_conf_as_the_manual_page_says(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    conf = ResolvConf(str(file))
    assert (conf.servers(), conf.search()) == (("127.0.0.1",), ())
    file.write_text(
        "# comment\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver\nnameserver fe80::1%eth0\nnameserver ::1\n"
        "nameserver 192.0.2.4\ndomain a.example.\nsearch b.example c.example\noptions rotate\n"
    )
    assert conf.servers() == ("192.0.2.1", "fe80::1%eth0", "::1")
    assert conf.search() == ("b.example", "c.example")
    assert Hosts(str(tmp_path)).addresses("x") == ()  # a directory


def test_an_answer_with_a_hostile_name_is_left_out() -> None:
    asked = question(1, "example", dns.MX)
    owner = b"\7example\0"
    rdata = b"\0\1" + b"\4a\r\nb\7example\0"
    record = owner + b"\0\x0f\0\1\0\0\0\5" + len(rdata).to_bytes(2, "big") + rdata
    answer = read_answer(b"\0\1\x81\x80\0\1\0\1\0\0\0\0" + asked[12:] + record, asked)
    assert answer is not None
    assert records_of(answer, "example", dns.MX)[0] == (Exchange(1, ""),)
