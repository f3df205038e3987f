"""Which keywords are known, and which parameters fit them."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.extensions import KEYWORDS, cut, fits, known


def test_the_registry_and_the_field_are_complete() -> None:
    registered = [name for name, extension in KEYWORDS.items() if extension.reference.startswith(("RFC", "IANA"))]
    assert len(registered) == 35, "IANA's registry of 2025-09-19"
    field = set(KEYWORDS) - set(registered)
    assert field == {
        b"AUTH=", b"XCLIENT", b"XFORWARD", b"X-ANONYMOUSTLS", b"X-EXPS", b"X-EXCHANGEAUTH", b"X-LINK2STATE",
        b"XEXCH50", b"XRDST", b"XSHADOW", b"XSHADOWREQUEST", b"PIPECONNECT", b"PRDR", b"XEXDATA",
    }  # fmt: skip


@pytest.mark.parametrize("word", [b"Ok", b"OK", b"ID", b"EHLO", b"coremail", b"8", b"", b"STARTTLSX", b"XVERP=Courier"])
def test_words_that_servers_write_in_the_place_of_keywords_are_not_known(word: bytes) -> None:
    assert known(word) is None
    assert not fits(word, b"")


@pytest.mark.parametrize("word", [b"STARTTLS", b"starttls", b"8bitmime", b"AUTH=LOGIN", b"auth=", b"X-Exps"])
def test_keywords_are_known_in_any_case(word: bytes) -> None:
    assert known(word) is not None


@pytest.mark.parametrize(
    ("word", "parameters", "fit"),
    [
        (b"STARTTLS", b"", True),
        (b"STARTTLS", b"foo", False),
        (b"SIZE", b"", True),
        (b"SIZE", b"0", True),
        (b"size", b"30000000", True),
        (b"SIZE", b"1" * 21, False),
        (b"SIZE", b"10M", False),
        (b"SIZE", b"Hello client.example", False),
        (b"DELIVERBY", b"300", True),
        (b"DELIVERBY", b"", True),
        (b"AUTH", b"LOGIN PLAIN CRAM-MD5", True),
        (b"AUTH", b"login  plain", True),
        (b"AUTH", b"", True),
        (b"AUTH", b"[192.0.2.1]", False),
        (b"AUTH=LOGIN", b"PLAIN", True),
        (b"AUTH=", b"", True),
        (b"AUTH=x@y", b"", False),
        (b"LIMITS", b"RCPTMAX=1000 MAILMAX=5", True),
        (b"LIMITS", b"1000", False),
        (b"FUTURERELEASE", b"1296000 2026-11-24T00:00:00Z", True),
        (b"FUTURERELEASE", b"soon", False),
        (b"NO-SOLICITING", b"org.example:ADV:ADLT,net.example:ADV", True),
        (b"BURL", b"imap imap://mail.example.com", True),
        (b"MT-PRIORITY", b"STANAG4406", True),
        (b"MT-PRIORITY", b"a b", False),
        (b"XCLIENT", b"NAME ADDR PROTO HELO", True),
        (b"X-EXPS", b"GSSAPI NTLM", True),
        (b"X-EXCHANGEAUTH", b"SHA256", True),
        (b"HELP", b" \t", True),
        (b"HELP", b"yourself", False),
        (b"NOSUCH", b"", False),
    ],
)
def test_parameters_fit_or_do_not(word: bytes, parameters: bytes, fit: bool) -> None:
    assert fits(word, parameters) is fit


@pytest.mark.parametrize(
    ("word", "head"),
    [(b"STARTTLS=1", b"STARTTLS"), (b"SIZE:", b"SIZE"), (b"a:b=c", b"a"), (b"HELP", b"HELP"), (b"", b"")],
)
def test_cut_takes_what_stands_before_the_first_equals_or_colon(word: bytes, head: bytes) -> None:
    assert cut(word) == head


def test_every_keyword_says_what_may_follow_it() -> None:
    for name, extension in KEYWORDS.items():
        assert extension.keyword == name == name.upper()
        assert extension.shape
        assert fits(name, b"")
