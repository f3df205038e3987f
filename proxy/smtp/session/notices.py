"""The few replies that are the proxy's own: 421 and 454, always temporary, always with a cause for the sender's log.

RFC 5321 3.8 and 4.2.2 (421: service closing the channel), RFC 3207 4 (454: TLS not available for a temporary reason),
RFC 3463 for the enhanced status codes.  The text is printable ASCII on one line, at most `MAX_NOTICE` octets, so that
every sender logs it whole, and ends with the session's id, by which it is found in our log.  Those of 4.7.1 name
neither route nor destination: they go to strangers.
"""

from __future__ import annotations

from typing import Final

MAX_NOTICE: Final = 400


def printable(text: str) -> str:
    """`text` with everything that is not printable ASCII replaced by `?`."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def notice(code: int, status: str, text: str, session_id: str = "") -> bytes:
    """One reply line: `421 4.4.1 text [id]`, CRLF included, its text cut so that all is `MAX_NOTICE` octets at most."""
    ending = f" [{printable(session_id)}]" if session_id else ""
    line = f"{code} {status} {printable(text)}"[: MAX_NOTICE - len(ending) - 2]
    return (line + ending).encode("ascii") + b"\r\n"


def closing(status: str, route: str, cause: str, destination: str = "", session_id: str = "") -> bytes:
    """421 with the route, the destination where there is one, the cause and the session's id."""
    if status == "4.7.1":
        return notice(421, status, cause, session_id)
    where = f"{destination}: " if destination else ""
    return notice(421, status, f"ehlo-proxy route {route}: {where}{cause}", session_id)


def no_tls(route: str, cause: str, destination: str = "", session_id: str = "") -> bytes:
    """454 in answer to STARTTLS, with the reason why the server's side could not be made safe."""
    where = f"{destination}: " if destination else ""
    return notice(454, "4.7.0", f"TLS not available, ehlo-proxy route {route}: {where}{cause}", session_id)
