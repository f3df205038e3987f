"""`client_name`: a client whose name no server takes goes on by the operator's, and nobody else is touched."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import Found, ToClient, ToServer
from proxy.smtp.session.policy import SessionPolicy
from tests.playbook import BANNER, Client, Connected, Playbook, Server, Told, Wait

NAME = b"printer.domain1.com"
REPLY = b"250-mail.example.com\r\n250 HELP\r\n"


def play(mode: str = "repair", name: bytes = NAME) -> Playbook:
    policy = SessionPolicy(client_name=name, repair=RepairPolicy(mode=mode))
    return Playbook(policy) >> Connected() >> Server(BANNER) << ToClient(BANNER)


def found(before: bytes, after: bytes, *, repaired: bool = True) -> Found:
    return Found("client-name-invalid", (before,), repaired, (after,), "client")


@pytest.mark.parametrize(
    ("line", "goes_on"),
    [
        (b"EHLO localhost\r\n", b"EHLO printer.domain1.com\r\n"),
        (b"helo [fe80::1%eth0]\r\n", b"helo printer.domain1.com\r\n"),
        (b"  Ehlo my_printer.local \n", b"Ehlo printer.domain1.com\n"),
        (b"EHLO\r\n", b"EHLO printer.domain1.com\r\n"),
        (b"LHLO a b.example\r\n", b"LHLO printer.domain1.com\r\n"),
    ],
)
def test_a_name_that_is_none_goes_on_as_the_operators(line: bytes, goes_on: bytes) -> None:
    cut = b"\r\n"
    assert (
        play()
        >> Client(line)
        << found(line.rstrip(cut), goes_on.rstrip(cut))
        << ToServer(goes_on)
        >> Server(REPLY)
        << ToClient(REPLY)
    )


@pytest.mark.parametrize("line", [b"EHLO a.example\r\n", b"ehlo  [192.0.2.1] \n", b"HELO [IPv6:2001:db8::1]\r\n"])
def test_a_name_that_may_be_said_is_not_touched(line: bytes) -> None:
    assert play() >> Client(line) << ToServer(line)


def test_without_a_name_to_say_it_is_told_once_and_goes_on_as_it_came() -> None:
    line = b"EHLO localhost\r\n"
    book = play(name=b"")
    assert book
    book.loud = True
    assert (
        book
        >> Client(b"NOOP\r\n" + line)
        << Told("client-name-invalid EHLO localhost")
        << ToServer(b"NOOP\r\n" + line)
        >> Server(b"250 2.0.0 Ok\r\n")
        << ToClient(b"250 2.0.0 Ok\r\n")
        >> Server(REPLY)
        << Told("ehlo good")
        << ToClient(REPLY)
        >> Client(b"HELO again\r\n")
        << ToServer(b"HELO again\r\n")
    )


def test_observe_tells_and_changes_nothing_and_off_does_neither() -> None:
    line = b"EHLO localhost\r\n"
    book = play("observe")
    assert book
    book.loud = True
    assert book >> Client(line) << Told("client-name-invalid EHLO localhost") << ToServer(line)
    assert play("off") >> Client(line) << ToServer(line)


def test_a_server_is_never_made_to_greet_with_what_the_client_calls_itself() -> None:
    policy = SessionPolicy(client_name=NAME, repair=RepairPolicy(greeting=b"localhost"))
    play = Playbook(policy) >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(b"EHLO localhost\r\n")
    play << found(b"EHLO localhost", b"EHLO " + NAME) << ToServer(b"EHLO " + NAME + b"\r\n")
    shown = b"250-mail.example.com\r\n250-STARTTLS\r\n250 HELP\r\n"
    assert play >> Server(b"250-STARTTLS\r\n250 HELP\r\n") >> Wait(1.0) << ToClient(shown)
