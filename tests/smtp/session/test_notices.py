"""The proxy's own replies: one line, printable, temporary, and silent towards strangers."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.replies import code_of, ends_reply
from proxy.smtp.session.notices import MAX_NOTICE, closing, no_tls, notice, printable


def test_it_names_the_route_the_destination_and_the_cause() -> None:
    assert closing("4.4.1", "domain1", "connection refused", "mx.example.com (192.0.2.1) port 25") == (
        b"421 4.4.1 ehlo-proxy route domain1: mx.example.com (192.0.2.1) port 25: connection refused\r\n"
    )
    assert (
        closing("4.3.2", "domain1", "too many sessions") == b"421 4.3.2 ehlo-proxy route domain1: too many sessions\r\n"
    )
    assert no_tls("domain1", "it has expired", "mx.example.com port 25") == (
        b"454 4.7.0 TLS not available, ehlo-proxy route domain1: mx.example.com port 25: it has expired\r\n"
    )
    assert no_tls("domain1", "no") == b"454 4.7.0 TLS not available, ehlo-proxy route domain1: no\r\n"


def test_to_a_stranger_it_names_neither_route_nor_destination() -> None:
    assert closing("4.7.1", "domain1", "not available to this client", "mx.example.com") == (
        b"421 4.7.1 not available to this client\r\n"
    )


def test_it_ends_with_the_sessions_id_however_long_the_cause_is() -> None:
    for cause in ("no", "x" * 1000):
        for line in (closing("4.4.2", "r", cause, "mx", "5f-1"), closing("4.7.1", "r", cause, "mx", "5f-1"),
                     no_tls("r", cause, "mx", "5f-1")):  # fmt: skip
            assert line.endswith(b" [5f-1]\r\n")
            assert len(line) <= MAX_NOTICE


@pytest.mark.parametrize("text", ["two\r\nlines", "a\0b\x7f\x1b[2J", "é€", "\udcff", "x" * 10000, "", "\t"])
def test_whatever_the_text_it_is_one_short_printable_line(text: str) -> None:
    for line in (notice(421, "4.4.2", text), closing("4.4.2", text, text, text), no_tls(text, text, text)):
        assert line.endswith(b"\r\n")
        assert len(line) <= MAX_NOTICE
        assert all(32 <= octet < 127 for octet in line[:-2])
        assert ends_reply(line)
        assert code_of(line) in (421, 454)


def test_printable_keeps_what_is() -> None:
    assert printable(" !~") == " !~"
    assert printable("a\tb\xa0c") == "a?b?c"
