"""Child processes of `demo` and of other programs' tests: this same program with another command, started, listened
to, and always ended.

A child is found by what it says, within a time; it gets SIGTERM, and SIGKILL if that does not help.  Children stay in
the process group of their parent, so that a Ctrl-C reaches all.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from types import TracebackType

import proxy

END_TIMEOUT = 3.0  # seconds between SIGTERM and SIGKILL
MAX_OUTPUT = 256 * 1024  # bytes of a child's that are kept


class ChildFailed(Exception):
    """A child did not do what was expected; the text says which, and what it said."""


class Child:
    """`python -m proxy ARGUMENTS`; both its outputs are read together."""

    def __init__(self, *arguments: str) -> None:
        self.name = arguments[0]
        where = os.path.dirname(os.path.dirname(os.path.abspath(proxy.__file__)))
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join((where, inherited)) if inherited else where
        # -P: a directory `proxy` where the person happens to stand is not this program
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-P", "-m", "proxy", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._said = b""

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def said(self) -> str:
        """All that it has said so far."""
        return self._said.decode("utf-8", "replace")

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """Until what it says matches; raises `ChildFailed` when it does not in time, or ends."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.said, re.MULTILINE)
            if match is not None:
                return match
            left = deadline - time.monotonic()
            if left <= 0:
                raise ChildFailed(f"`{self.name}` did not come up within {seconds:g} s; it says: {self.said.strip()}")
            if not self.hear(left):
                raise ChildFailed(f"`{self.name}` ended; it says: {self.said.strip()}")

    def end(self) -> int:
        """End it, and its exit code.  What it said until then is in `said`."""
        if self._process.poll() is None:
            self._process.terminate()
            deadline = time.monotonic() + END_TIMEOUT
            while time.monotonic() < deadline and self.hear(deadline - time.monotonic()):
                pass
            try:
                self._process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def hear(self, seconds: float) -> bool:
        """Take in what comes within `seconds`; False at the end of its output."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if poll.poll(max(0.0, seconds) * 1000):
            data = os.read(fd, 64 * 1024)
            if not data:
                return False
            self._said = (self._said + data)[-MAX_OUTPUT:]
        return True
