"""A sender as MTAs are: it tries again on a 4xx reply, a lost connection or a time-out, and never on a 5xx.

Each message has a subject of its own, so that what arrives can be counted.
"""

from __future__ import annotations

import smtplib
import ssl
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.hosts.network import Host


@dataclass
class Sent:
    """One message, and what became of each attempt at it."""

    subject: str
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Mta:
    """On one host; `context` is what it trusts: STARTTLS is used wherever it is offered, and must be."""

    host: Host
    context: ssl.SSLContext
    name: str
    patience: float = 300.0  # seconds for one reply; less would bring a second copy where only the 250 is late
    gives_up: float = 400.0  # seconds for one message
    pause: float = 0.3  # between two attempts

    def deliver(self, address: tuple[str, int], subject: str, size: int = 2000) -> Sent:
        """Until it is delivered.  AssertionError when it takes too long, SMTPResponseException on a 5xx."""
        sent = Sent(subject)
        message = _message(subject, size)
        began = time.monotonic()
        with self.host.entered():
            while True:
                try:
                    self._once(address, message)
                except smtplib.SMTPResponseException as error:
                    if not 400 <= error.smtp_code < 500:
                        raise
                    sent.failures.append(f"{error.smtp_code} {error.smtp_error!r}")
                except (OSError, smtplib.SMTPServerDisconnected) as error:
                    sent.failures.append(f"{type(error).__name__}: {error}")
                else:
                    sent.seconds = time.monotonic() - began
                    return sent
                assert time.monotonic() - began < self.gives_up, f"{subject} not delivered: {sent.failures[-5:]}"
                time.sleep(self.pause)

    def _once(self, address: tuple[str, int], message: bytes) -> None:
        # SMTP() raises SMTPConnectError, an SMTPResponseException, when the banner is a 421.
        with smtplib.SMTP(*address, local_hostname="client.example", timeout=self.patience) as client:
            client._host = self.name  # type: ignore[attr-defined]  # what starttls verifies
            client.ehlo_or_helo_if_needed()
            client.starttls(context=self.context)
            client.ehlo_or_helo_if_needed()
            _expect(client.mail("a@sender.example"))
            _expect(client.rcpt("b@recipient.example"))
            _expect(client.data(message))


def _expect(answer: tuple[int, bytes]) -> None:
    code, text = answer
    if code // 100 != 2:
        raise smtplib.SMTPResponseException(code, text)


def _message(subject: str, size: int) -> bytes:
    line = b"x" * 70 + b"\r\n"
    return f"Subject: {subject}\r\n\r\n".encode() + line * (size // len(line)) + b"end of " + subject.encode() + b"\r\n"


def arrived(mails: Iterable[bytes]) -> Counter[str]:
    """How often each subject came; AssertionError for a message that is not whole."""
    found: Counter[str] = Counter()
    for mail in mails:
        subject = mail.partition(b"\r\n")[0].removeprefix(b"Subject: ")
        assert mail.endswith(b"end of " + subject + b"\r\n"), mail[-100:]
        found[subject.decode()] += 1
    return found
