"""Signals that come before the service can answer them.

From `hold` until the daemon has its own answers: a hang-up or a question for the status is remembered, and the daemon
asks for it by `came`; a request to end is granted at once, and well, since nothing is served yet and the kernel takes
back all there is.  Without it the first would end the process, which no supervisor takes for a reason to restart it.

A worker takes orders from its parent alone; a signal to it is mostly one that a terminal sends to all.

This module is imported before anything else is, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal
from typing import Final

FOR_LATER: Final = (signal.SIGHUP, signal.SIGUSR1)
TO_END: Final = (signal.SIGTERM, signal.SIGINT)

_came: set[int] = set()


def hold() -> None:
    """From now on no signal but SIGTERM and SIGINT ends this process, and these end it well."""
    for number in FOR_LATER:
        signal.signal(number, lambda came, _frame: _came.add(came))
    for number in TO_END:
        signal.signal(number, _end)


def came(number: int) -> bool:
    """Whether that signal came meanwhile; asked once, it is forgotten."""
    there = number in _came
    _came.discard(number)
    return there


def hold_in_worker() -> None:
    """The same in a worker."""
    for number in (*FOR_LATER, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)


def _end(_number: int, _frame: object) -> None:
    # Not by an exception: whoever imports something just now might catch it.
    os._exit(0)
