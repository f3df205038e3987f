"""systemd's two small protocols: telling it how the service is, sd_notify(3), and taking its sockets, sd_listen_fds(3).

`Notifier` sends datagrams to $NOTIFY_SOCKET, a path or an abstract name (`@…`).  Without the variable it does
nothing.  A datagram never waits and a failure to send is nobody's concern: if systemd is gone there is nobody to tell,
and the mail goes on.

`listen_fds` reads $LISTEN_FDS once.  Two sockets of one name are both kept; Twisted's `systemd:` endpoint would drop
the first, and importing `twisted.internet.endpoints` takes the variables away, so call this before that.

Both remove their variables from the environment, so that no child of ours takes them for its own.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import MutableMapping
from typing import Final

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
MAX_FDS: Final = 4096
_MAX_STATUS: Final = 500  # characters: one line of `systemctl status`


class Notifier:
    """Tells systemd, when it wants to be told.

    `watchdog_seconds` is the time within which `watchdog` must be called again, 0.0 when there is no watchdog; call it
    at least twice as often (sd_watchdog_enabled(3)).
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self.watchdog_seconds = _watchdog_seconds(environ)
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._status = ""

    def ready(self, status: str = "") -> None:
        """The service has started, or has finished reloading."""
        self._send("READY=1", self._new_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same one again is not sent again."""
        line = self._new_status(text)
        if line:
            self._send(line)

    def watchdog(self) -> None:
        """The reactor turns."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # The time tells systemd which READY=1 belongs to this reload (Type=notify-reload).
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float = 0.0) -> None:
        """The service ends.  `seconds`, if given, is how long it may take at most from now on.

        With it a unit whose TimeoutStopSec is shorter than the configured drain does not cut sessions.
        """
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}" if seconds else "")

    def close(self) -> None:
        """Let go of the socket; nothing is sent any more."""
        self._address = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _new_status(self, text: str) -> str:
        # A line end would begin another assignment.
        text = " ".join(text.split())[:_MAX_STATUS]
        if not text or text == self._status:
            return ""
        self._status = text
        return f"STATUS={text}"

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            message = "\n".join(filter(None, lines)).encode("utf-8", "replace")
            self._socket.sendto(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
        except OSError:
            # Not even the status is known to have arrived.
            self._status = ""


def _address(text: str) -> str:
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog_seconds(environ: MutableMapping[str, str]) -> float:
    interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not interval.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(interval) / 1e6


def listen_fds(environ: MutableMapping[str, str] = os.environ, first: int = FIRST_FD) -> dict[str, list[int]]:
    """systemd's sockets by their FileDescriptorName, in the order of their descriptors; empty without any.

    Each is set close-on-exec and keeps its number.  What is not a socket is left out.
    """
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) > MAX_FDS:
        return {}
    found: dict[str, list[int]] = {}
    for place in range(int(count)):
        fd = first + place
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)
        except OSError:
            continue
        name = names[place] if place < len(names) else ""
        found.setdefault(name or "unknown", []).append(fd)
    return found
