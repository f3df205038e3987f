"""The fields of a session's events, and how loudly its end is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.daemon.log.forms import NUMBER, OURS, PEERS, SECONDS, WORD, WORDS, Form, Formed

if TYPE_CHECKING:
    from proxy.net.observer import Story

_WHO = {"session": WORD, "route": WORD, "client": OURS, "client_port": NUMBER}
_WHERE = {"destination": OURS, "source_port": NUMBER}
_WHAT = {
    "ehlo_name": PEERS,
    "outcome": WORD,
    "by": WORD,
    "reason": OURS,
    "ehlo": WORD,
    "repaired": WORDS,
    "tls": WORD,
    "tls_version": OURS,
    "sni": PEERS,
    "alert": OURS,
    "seconds": SECONDS,
    "bytes_from_client": NUMBER,
    "bytes_from_server": NUMBER,
}
_END = [Form({**_WHO, **dict(list(_WHERE.items())[:known]), **_WHAT}) for known in range(3)]

_WELL = frozenset(("completed", "client-closed", "client-reset"))


def level_of_end(story: Story) -> str:
    """`info` for what is no failure.  A server that closes is none, but where we had to say 421 (and so a reason)."""
    if story.outcome in _WELL or (story.outcome == "server-closed" and not story.reason):
        return "info"
    return "warning"


def session_fields(story: Story) -> dict[str, object]:
    """What every event of a session carries."""
    fields: dict[str, object] = {
        "session": story.id,
        "route": story.route,
        "client": story.client,
        "client_port": story.client_port,
    }
    if story.destination or story.destination_name:
        fields["destination"] = destination(story.destination_name, story.destination)
    return fields


def end_fields(story: Story, seconds: float) -> Formed:
    """What `session-end` tells; every key is always there, but `destination` and `source_port` where there is none."""
    where: tuple[object, ...] = ()
    if story.source_port:
        where = (destination(story.destination_name, story.destination), story.source_port)
    elif story.destination or story.destination_name:
        where = (destination(story.destination_name, story.destination),)
    who = (story.id, story.route, story.client, story.client_port)
    what = (
        story.ehlo_name,
        story.outcome,
        story.by,
        story.reason,
        story.ehlo,
        story.repaired,
        story.tls,
        story.tls_version,
        story.sni,
        story.alert,
        seconds,
        story.bytes_from_client,
        story.bytes_from_server,
    )
    return _END[len(where)], who + where + what


def destination(name: str, address: str) -> str:
    """Name and address as Postfix writes them: `mx.example[192.0.2.10]:25`, `[2001:db8::1]:25`, or the one known."""
    if not name or not address or name == address:
        return address or name
    host, _, port = address.rpartition(":")
    if host == name:
        return address
    host = host if host.startswith("[") else f"[{host}]"
    return f"{name.removesuffix(':' + port)}{host}:{port}"
