"""Clients for a booted machine: many at a steady rate, and single ones that stand still where a test wants them."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import threading
import time
from collections import Counter

from tests.systemd.machine import Machine

GREETING, KEYWORD = b"250-mail.domain1.com", b"STARTTLS"
ATTEMPTS = 5  # a mail server comes again after a 421; these do so at once
PATIENCE = 60.0  # seconds, for one session


class Senders:
    """Sessions at a steady rate, from a thread of its own.  `ended` counts them by how they ended: `completed`, or what
    went wrong.  `again` counts those that were told 421 4.3.2 at a drain, and came again."""

    def __init__(self, machine: Machine, rate: float, host: str = "127.0.0.1") -> None:
        self.machine = machine
        self.rate = rate
        self.host = host
        self.ended: Counter[str] = Counter()
        self.again = 0
        self.longest = 0.0  # seconds that a session took at most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Senders:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No more of them; waits until the last has ended."""
        self._over.set()
        self._thread.join(PATIENCE + 30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with self.machine.network():
            asyncio.run(self._send())

    async def _send(self) -> None:
        begun, count = time.monotonic(), 0
        running: set[asyncio.Task[None]] = set()
        while not self._over.is_set():
            for _ in range(min(100, int((time.monotonic() - begun) * self.rate) - count)):
                count += 1
                task = asyncio.create_task(self._session())
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(0.005)
        await asyncio.gather(*running)

    async def _session(self) -> None:
        begun = time.monotonic()
        outcome = ""
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(ATTEMPTS):
                    outcome = await self._dialogue()
                    if not outcome.startswith("421 4.3.2"):
                        break
                    self.again += 1
                    await asyncio.sleep(0.05)
        except OSError as error:  # refused, reset, too late
            outcome = repr(error)
        self.ended[outcome] += 1
        self.longest = max(self.longest, time.monotonic() - begun)

    async def _dialogue(self) -> str:
        reader, writer = await asyncio.open_connection(self.host, 25)
        try:
            told = [await _reply(reader)]
            for command in (b"EHLO esa.com\r\n", b"QUIT\r\n"):
                if told[-1].startswith(b"421"):
                    break
                writer.write(command)
                told.append(await _reply(reader))
            rest = await reader.read()  # to the end: a reset would show here
        finally:
            writer.close()
        if told[-1].startswith(b"421"):
            return told[-1].decode("latin-1")
        lines = told[1].splitlines() if len(told) == 3 else [b""]
        well = told[0][:3] == b"220" and lines[0] == GREETING and any(KEYWORD in line for line in lines[1:])
        return "completed" if well and told[2][:3] == b"221" and not rest else repr((told, rest))


async def _reply(reader: asyncio.StreamReader) -> bytes:
    """A whole reply; what there is of it at the end of the connection."""
    reply = b""
    while True:
        line = await reader.readline()
        reply += line
        if line[3:4] != b"-":
            return reply


class Waiting:
    """A session that has said EHLO and waits."""

    def __init__(self, machine: Machine, host: str = "127.0.0.1") -> None:
        with machine.network():
            self.sock = socket.create_connection((host, 25), 20)
        self.lines = self.sock.makefile("rb")
        assert self.lines.readline()[:3] == b"220"
        self.sock.sendall(b"EHLO esa.com\r\n")
        while self.lines.readline()[3:4] == b"-":
            pass

    def rest(self) -> bytes:
        """All that is said until the connection ends."""
        try:
            return self.lines.read()
        finally:
            self.lines.close()
            self.sock.close()


class InMessage:
    """A session in TLS, inside a message; `finish` says the rest of it."""

    def __init__(self, machine: Machine, host: str = "127.0.0.1", *, pem: str) -> None:
        context = ssl.create_default_context(cadata=pem)
        with machine.network():
            self.smtp = smtplib.SMTP(host, 25, local_hostname="esa.com", timeout=60)
        self.smtp._host = "mail.domain1.com"  # type: ignore[attr-defined]  # the name that starttls() checks
        self.smtp.starttls(context=context)
        assert self.smtp.mail("sender@esa.com")[0] == 250
        assert self.smtp.rcpt("someone@domain1.com")[0] == 250
        self.smtp.putcmd("DATA")
        assert self.smtp.getreply()[0] == 354
        self.smtp.send(b"Subject: in the middle\r\n\r\nbefore\r\n")

    def finish(self) -> tuple[int, int]:
        """The codes of the replies to the final dot and to QUIT."""
        self.smtp.send(b"after\r\n.\r\n")
        dot = self.smtp.getreply()[0]
        return dot, self.smtp.quit()[0]
