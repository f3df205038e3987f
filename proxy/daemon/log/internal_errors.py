"""Our own bugs, and Twisted's, in the service's log: one line each, with where and what, never a peer's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner
from zope.interface import provider

if TYPE_CHECKING:
    from proxy.daemon.log.logs import EventLog

MAX_FRAMES = 4


def catch_errors(log: EventLog) -> None:
    """Take over Twisted's log: failures and what is critical become `internal-error` lines, the rest is dropped."""

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure")
        level = event.get("log_level", LogLevel.info)
        if failure is None and level < LogLevel.error:
            return
        fields: dict[str, object] = {"where": event.get("log_namespace", "")}
        if failure is not None:
            fields["what"] = f"{failure.type.__name__}: {failure.getErrorMessage()}"
            frames = [f"{frame[1].rpartition('/')[2]}:{frame[2]} {frame[0]}" for frame in failure.frames]
            fields["frames"] = frames[-MAX_FRAMES:]
        else:
            fields["what"] = str(event.get("log_format", ""))
        log.emit("error", "internal-error", fields)

    globalLogBeginner.beginLoggingTo([observe], redirectStandardIO=False, discardBuffer=True)
