"""Policy x certificate x TLS version through the whole proxy: who gets 220, who gets 454, what the client reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from proxy.net.tls.identity import spki_sha256
from tests.bridge.parties import INSIDE_REPAIRED, VERSIONS, Keys, Server, bridge, hello, secure
from tests.certificates import BY_NAME, KINDS, NAME, NO_ISSUER, Issued, make
from tests.proxy_process import Running, running_proxy
from tests.scripted import nameless, servers

PIN = "the certificate's key is not pinned: it is sha256:"

# What the client reads behind the destination; "" for those that are let in.
BY_ADDRESS = {  # the destination is an address, and no verify_name stands in for it
    **dict.fromkeys(("good", "other-key"), "certificate is for mail.domain1.com, not 127.0.0.1"),
    "good-below-intermediate": "certificate is for mail.domain1.com, not 127.0.0.1",
    "wrong-name": "certificate is for mx.other.example, not 127.0.0.1",
    "wildcard": "certificate is for *.domain1.com, not 127.0.0.1",
    "wildcard-too-high": "certificate is for *.com, not 127.0.0.1",
    "address-literal": "",
    "no-san": "certificate has no subjectAltName",
    "expired": "certificate expired on 2024-01-01; certificate is for mail.domain1.com, not 127.0.0.1",
    "not-yet-valid": ("certificate is not valid before 2090-01-01; certificate is for mail.domain1.com, not 127.0.0.1"),
    "self-signed": "self-signed certificate; certificate is for mail.domain1.com, not 127.0.0.1",
    "unknown-ca": f"{NO_ISSUER}; certificate is for mail.domain1.com, not 127.0.0.1",
    "unknown-ca-complete": (
        "unknown CA: the chain ends in 'Unknown Root'; certificate is for mail.domain1.com, not 127.0.0.1"
    ),
    "incomplete-chain": f"{NO_ISSUER}; certificate is for mail.domain1.com, not 127.0.0.1",
    "wrong-purpose": "certificate is not for TLS servers; certificate is for mail.domain1.com, not 127.0.0.1",
}


def pin_of(kind: str) -> str:
    return spki_sha256(make(kind).certificate)


POLICIES: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "hostname": ({"verify": "hostname"}, BY_NAME),
    "address": ({"verify": "hostname", "verify_name": ""}, BY_ADDRESS),
    "pin": (
        {"verify": "pin", "pins": ["sha256:" + pin_of("good")]},
        {kind: "" if kind == "good" else PIN + pin_of(kind) for kind in KINDS},
    ),
    "own-pin": ({"verify": "pin"}, dict.fromkeys(KINDS, "")),  # each has its own key pinned: nothing else counts
    "none": ({"verify": "none"}, dict.fromkeys(KINDS, "")),
}
ROWS = [(policy, kind, version) for policy in POLICIES for kind in KINDS for version in VERSIONS]


@dataclass(frozen=True, slots=True)
class Table:
    running: Running
    servers: dict[tuple[str, str, str], Server]
    ports: dict[tuple[str, str, str], int]
    server_ports: dict[tuple[str, str, str], int]


@pytest.fixture(scope="module")
def table(keys: Keys, ours: Issued) -> Iterator[Table]:
    """A server and a route for each row, in one proxy."""
    scripts = {row: Server(keys.server(make(row[1]), row[2])) for row in ROWS}
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(servers(list(scripts.values())))
        routes = []
        for row, server in zip(ROWS, there, strict=True):
            tls = dict(POLICIES[row[0]][0])
            if row[0] == "own-pin":
                tls["pins"] = ["sha256:" + pin_of(row[1])]
            routes.append(bridge(server.port, keys=keys, issued=ours, tls=tls, name="-".join(row).replace(".", "")))
        running = stack.enter_context(running_proxy({"log": {"level": "debug"}, "route": routes}))
        ports = dict(zip(ROWS, running.ports, strict=True))
        yield Table(running, scripts, ports, dict(zip(ROWS, [one.port for one in there], strict=True)))


def test_the_tables_have_every_kind() -> None:
    assert all(set(words) == set(KINDS) for _, words in POLICIES.values())


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_who_gets_220_who_gets_454_and_why(table: Table, keys: Keys, row: tuple[str, str, str]) -> None:
    policy, kind, version = row
    words = POLICIES[policy][1][kind]
    server = table.servers[row]
    client, _ = hello(table.ports[row])
    with client:
        said = client.say(b"STARTTLS")
        if words:
            name = "-".join(row).replace(".", "")
            where = f"ehlo-proxy route {name}: 127.0.0.1 port {table.server_ports[row]}"
            assert nameless(said).decode() == f"454 4.7.0 TLS not available, {where}: {words}"[:383] + "\r\n"
            assert (
                nameless(client.say(b"MAIL FROM:<a@example.org>"))
                == f"421 4.7.0 {where}: {words}"[:383].encode() + b"\r\n"
            )
            assert client.rest() == b""
            assert client.ended == "fin"
            assert [line[:4] for line in server.clear] == [b"EHLO", b"STAR"]
            assert server.inside == []
            return
        assert said == b"220 2.0.0 Ready to start TLS\r\n"
        secure(client, keys.client())
        assert client.say(b"EHLO client.example") == INSIDE_REPAIRED
        assert client.say(b"QUIT") == b"221 bye\r\n"
        assert server.inside == [b"EHLO client.example\r\n", b"QUIT\r\n"]
        told = table.running.wait_for("tls", side="server", version=version, route="-".join(row).replace(".", ""))
        assert told["verified"] == {"own-pin": "pin", "address": "hostname"}.get(policy, policy)
        assert server.sni[-1] == (None if policy in ("address", "pin", "own-pin", "none") else NAME)
