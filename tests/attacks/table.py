"""Every attack on the running proxy by its name: who comes, what serves them, and how the route is set."""

from __future__ import annotations

from typing import Final

from tests.attacks import clients, floods, names, servers
from tests.attacks.field import Attack, Field

HASTY: Final = {"banner": 1, "command": 1, "handshake": 2, "idle": 1, "half_closed": 0.7, "abort": 0.4, "connect": 2}
TRUSTED: Final = {"trusted_proxies": ["127.0.0.0/8"]}
NO_NAME: Final = {"verify": "none"}  # how far the handshake goes is what counts


def _nothing(ground: Field) -> None:
    raise AssertionError("this attack has a program of its own")


def _flood(word: str, count: int, *more: str, worst: bool = False) -> Attack:
    return Attack(_nothing, at_once=0, flood=(word, str(count), *more), worst=worst)


def _asked(answers: names.Answers) -> Attack:
    """Clients whose route has a name to be looked up; it never has an address, so each one asks again."""
    return Attack(clients.reads, at_once=10, names=answers, worst=True, keys={"timeouts": {"resolve": "3s"}})


WORST: Final = {
    "HelloRequests of a server, in clear": Attack(
        clients.asks_for_tls, servers.hello_requests, 4, bridge={}, worst=True
    ),
    "KeyUpdates of a client": Attack(clients.key_updates, servers.good, 2, bridge={}, worst=True),
    "KeyUpdates among a client's data": Attack(
        clients.key_updates_among_data, servers.good, 2, bridge={}, worst=True
    ),
    "DNS: 28 kB with a wrong number": _asked(names.wrong_number),
    "DNS: 28 kB with the right number": _asked(names.right_number),
    "DNS: 65,535 records, over TCP": _asked(names.records_without_end),
    "DNS: 2000 datagrams with a wrong number": _asked(names.a_storm_of_small_ones),
    "20 clients with NOOP": _flood("NOOP", 20, worst=True),
    "150 clients with NOOP": _flood("NOOP", 150, worst=True),
    "150 clients with little at a time": _flood("NOOP", 150, "small"),
    "150 clients with RSET": _flood("RSET", 150),
    "150 clients with EHLO": _flood("EHLO a", 150, worst=True),
    "150 clients with lines for a relay": _flood("MAIL", 150),
    "a DHE group of 10,000 bits": Attack(
        clients.asks_for_tls, servers.dhe(10_000), 4, worst=True,
        bridge={**NO_NAME, "server_minimum_version": "1.0", "security_level": 0},
    ),
    "a DHE group of 4096 bits": Attack(
        clients.asks_for_tls, servers.dhe(4096), 4, worst=True,
        bridge={**NO_NAME, "server_minimum_version": "1.0", "security_level": 0},
    ),
    "a certificate of 7000 names": Attack(
        clients.asks_for_tls, servers.certificate_of_many_names, 4, bridge={}, worst=True
    ),
    "a chain without an end": Attack(clients.asks_for_tls, servers.long_chain, 4, bridge={}, worst=True),
    "the pages, with 250 unprintable destinations": Attack(
        clients.looks_at_all_pages, servers.unprintable, 4, destinations=250, worst=True
    ),
    "records of two octets behind an EHLO": Attack(
        clients.small_records, servers.answers_one_ehlo, 20, worst=True,
        bridge={"server": "none", "verify": "none", "required": False},
    ),
    "one client that repeats EHLO": Attack(clients.repeats_ehlo, servers.answers_all, 1, worst=True),
    "strangers on 256 descriptors": Attack(
        clients.holds(60, "127.0.0.2"), servers.mailbox, 8, descriptors=256, worst=True,
        keys={"allow_clients": ["127.0.0.1/32"]},
    ),
}  # fmt: skip

SERVERS: Final = {
    f"a server without an end: {name}": Attack(clients.reads, serve, 4, keys=TRUSTED)
    for name, serve in servers.ENDLESS.items()
} | {
    f"a server without an end, not read: {name}": Attack(clients.reads_nothing, serve, 4, keys=TRUSTED)
    for name, serve in servers.ENDLESS.items()
}

CLIENTS: Final = {
    f"a client without an end: {name}, {how}": Attack(clients.says(data), serve, 4, keys=TRUSTED)
    for name, data in floods.COMMANDS.items()
    for how, serve in (
        ("unanswered", servers.answers_nothing), ("unread", servers.reads_nothing), ("answered", servers.answers_all),
    )
}  # fmt: skip

SLOW: Final = {
    "a server byte by byte": Attack(clients.reads, servers.byte_by_byte, 20),
    "a client byte by byte": Attack(clients.byte_by_byte, servers.answers_all, 20, worst=True),
    "PROXY headers an octet at a time": Attack(
        clients.trickles(clients.HEADER_1), servers.mailbox, 2, keys={"proxy_protocol": True, **TRUSTED}
    ),
    "PROXY headers that are none": Attack(
        clients.bad_headers, servers.mailbox, 2, keys={"proxy_protocol": True, **TRUSTED}
    ),
    "STARTTLS an octet at a time": Attack(
        clients.trickles(b"EHLO a.example\r\nSTARTTLS\r\n\x16\x03\x01\x01\0\x01\0\0\xfc\x03\x03"), servers.good, 2,
        bridge={}, worst=True),
    "a TLS hello an octet at a time": Attack(
        clients.trickles(b"\x16\x03\x01\x01\0\x01\0\0\xfc\x03\x03" + bytes(60)), servers.good, 2,
        bridge={"client": "implicit"},
    ),
    "hellos that nobody finishes": Attack(clients.half_a_handshake, servers.good, 3, bridge={}),
    "hundreds of hellos at once": Attack(
        clients.hellos_at_once, servers.good, 4, bridge={"client": "implicit"}, worst=True
    ),
    "a client's hello without an end": Attack(clients.hello_without_end, servers.good, 4, bridge={}),
    "a server's hello an octet at a time": Attack(
        clients.asks_for_tls, servers.hello_answered_byte_by_byte, 10, bridge={}
    ),
    "hellos that no server answers": Attack(clients.asks_for_tls, servers.hello_never_answered, 30, bridge={}),
}  # fmt: skip

CROWDS: Final = {
    "a thousand idle clients": Attack(clients.holds(250), servers.answers_nothing, 4, again=False),
    "clients of a server that says nothing": Attack(clients.holds(100), servers.silent, 3),
    "clients with half a command": Attack(clients.holds(100, first=b"EHLO "), servers.answers_nothing, 3),
    "clients that end their side at once": Attack(clients.half_closes, servers.mailbox, 4),
    "clients that come and go": Attack(clients.comes_and_goes, servers.mailbox, 4, worst=True),
    "clients that come and reset": Attack(clients.comes_and_resets, servers.mailbox, 4, worst=True),
    "servers that reset in a reply": Attack(clients.reads, servers.resets, 8),
    "servers that never close": Attack(clients.quits, servers.never_closes, 10),
    "strangers": Attack(
        clients.holds(50, "127.0.0.2"), servers.mailbox, 4, keys={"allow_clients": ["127.0.0.1/32"]}
    ),
    "clients beyond max_sessions": Attack(clients.holds(100), servers.mailbox, 4, keys={"max_sessions": 10}),
    "handshakes one after the other": Attack(clients.handshakes, servers.good, 4, bridge={}),
    "EHLO replies of 59 kB": Attack(clients.repeats_ehlo, servers.large_ehlo_replies, 4),
}  # fmt: skip

ADMIN: Final = {
    "pages that are asked for and not read": Attack(
        clients.asks_for_pages_and_reads_nothing, servers.unprintable, 3, destinations=250
    ),
    "a thousand connections to the admin listener": Attack(clients.holds_the_admin_listener, servers.mailbox, 3),
    "pages pipelined and not read": Attack(clients.pipelines_pages, servers.mailbox, 4, worst=True),
}  # fmt: skip

ATTACKS: Final[dict[str, Attack]] = {**WORST, **SERVERS, **CLIENTS, **SLOW, **CROWDS, **ADMIN}
