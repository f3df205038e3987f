"""Real senders and the faults of the dialogue: what is promised for each cell, and that docs/faults.md shows it."""

from __future__ import annotations

import contextlib
import email.message
import email.policy
import smtplib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.smtp.faults import DIALOGUE
from proxy.tools.simulate import simulated_server
from tests.clients import lab as labs
from tests.clients import postfix as postfixes
from tests.clients.dialogue import OFFERED, REQUIRED, ROWS, measure
from tests.clients.lab import CURES, REPAIRS
from tests.clients.matrix import MESSAGE, POSTFIX, Table, cell, read, versions
from tests.clients.senders import ALL
from tests.loopback import TOP, child, free_port, wait_until

PASSES = {"banner-multiline", "keyword-incomplete"}  # for an ordinary message


@pytest.fixture(scope="module")
def tables() -> Iterator[tuple[Table, Table]]:
    senders = [sender for sender in ALL if not sender.missing()]
    with tempfile.TemporaryDirectory(prefix="ehlo-matrix-") as folder:
        Path(folder).chmod(0o755)
        yield measure(Path(folder), senders, not postfixes.missing())


def test_every_fault_has_its_row_here_or_among_those_with_a_cure() -> None:
    assert {*DIALOGUE} == ({*ROWS} | {*CURES}) & {*DIALOGUE}


def test_whoever_requires_tls_never_sends_in_clear(tables: tuple[Table, Table]) -> None:
    words = {word for pair in tables[1].values() for each in pair for word in each.split(", ")}
    assert words <= {"TLS", "deferred", "bounced", "fails"}


def test_without_the_proxy_each_fault_stops_somebody_or_sends_him_in_clear(tables: tuple[Table, Table]) -> None:
    for table in tables:
        assert {fault for (fault, _), pair in table.items() if pair[0] != "TLS"} == {*ROWS} - PASSES


def test_through_the_proxy_nothing_is_worse_and_nothing_else_but_where_a_keyword_is_hidden(
    tables: tuple[Table, Table],
) -> None:
    other = {where: pair for table in tables for where, pair in table.items() if pair[0] != pair[1]}
    assert {fault for fault, _ in other} <= {*REPAIRS}
    assert {*other.values()} <= {("fails", "clear")}, "STARTTLS that is refused and hidden"


def test_a_second_ehlo_that_is_refused_bounces_the_mail_of_a_real_postfix(tables: tuple[Table, Table]) -> None:
    if why := postfixes.missing():
        pytest.skip(why)
    assert [table["ehlo-repeat-refused", POSTFIX] for table in tables] == [("bounced", "bounced")] * 2


def test_the_page_shows_what_was_measured(tables: tuple[Table, Table]) -> None:
    page = (TOP / "docs" / "faults.md").read_text()
    for table, begin in zip(tables, (OFFERED, REQUIRED), strict=True):
        shown = read(page, begin)
        assert {fault for fault, _ in shown} == {*ROWS}, "tests/run --matrix --faults --write docs/faults.md"
        if versions() in page:
            assert {where: cell(pair) for where, pair in table.items()} == shown


def test_mail_with_addresses_in_utf_8_is_at_risk_and_with_the_keyword_hidden_its_sender_knows_at_once() -> None:
    """SMTPUTF8 without 8BITMIME: smtplib takes the offer at its word and sends eight bits to a server for seven."""
    message = email.message_from_bytes(MESSAGE, policy=email.policy.SMTPUTF8)
    message.replace_header("Subject", "Größe")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ehlo-matrix-")))
        lab = stack.enter_context(labs.running(folder, ["keyword-incomplete"]))
        for proxied in (False, True):
            with smtplib.SMTP("127.0.0.1", lab.port("keyword-incomplete", proxied), "sender.example", 10) as smtp:
                assert not smtp.has_extn("8bitmime")
                refused = pytest.raises(smtplib.SMTPNotSupportedError, match="internationalized")
                with refused if proxied else contextlib.nullcontext():
                    smtp.send_message(message, "anna@sender.example", ["größe@domain1.com"])
        arrived = lab.mail_to("größe@domain1.com".encode().decode("latin-1"), 5)
    assert arrived is not None
    assert "Subject: Größe\r\n".encode() in arrived.data


HAPROXY = """\
global
    maxconn 10
defaults
    mode tcp
    timeout connect 3s
    timeout client 3s
    timeout server 3s
backend servers
    option smtpchk EHLO balancer.domain1.com
    server good 127.0.0.1:{good} check inter 200
    server many 127.0.0.1:{many} check inter 200
listen nobody
    bind 127.0.0.1:{own}
"""


def test_haproxy_takes_a_server_with_a_banner_of_several_lines_for_down(tmp_path: Path) -> None:
    program = "/usr/sbin/haproxy"
    if not Path(program).exists():
        pytest.skip("haproxy is not installed")
    with simulated_server("none") as good, simulated_server(fault="banner-multiline") as many:
        config, log = tmp_path / "haproxy.cfg", tmp_path / "log"
        config.write_text(HAPROXY.format(good=good.port, many=many.port, own=free_port()))
        with child([program, "-db", "-f", config], log):
            wait_until(lambda: "Server servers/many is DOWN" in log.read_text(), 10, "the server is told as down")
        said = log.read_text()
    assert 'info: "220-mail.domain1.com ESMTP Service ready"' in said
    assert "servers/good is DOWN" not in said
