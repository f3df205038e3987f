"""The fields of a session's events, and how loudly its end is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.net.observer import Story

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


def end_fields(story: Story, seconds: float) -> dict[str, object]:
    """What `session-end` tells; every key is always there, but `destination` and `source_port` where there is none."""
    fields = session_fields(story)
    fields["source_port"] = story.source_port or None
    fields["ehlo_name"] = _of_peer(story.ehlo_name)
    fields["outcome"] = story.outcome
    fields["by"] = story.by
    fields["reason"] = story.reason
    fields["ehlo"] = story.ehlo
    fields["repaired"] = tuple(dict.fromkeys(story.repaired))
    fields["tls"] = story.tls
    fields["tls_version"] = story.tls_version
    fields["sni"] = _of_peer(story.sni)
    fields["alert"] = story.alert
    fields["seconds"] = seconds
    fields["bytes_from_client"] = story.bytes_from_client
    fields["bytes_from_server"] = story.bytes_from_server
    return fields


def _of_peer(text: str) -> str | bytes:
    """Text whose characters are a peer's octets: as these, where they are more than ASCII."""
    return text if text.isascii() else text.encode("latin-1", "replace")


def destination(name: str, address: str) -> str:
    """Name and address as Postfix writes them: `mx.example[192.0.2.10]:25`, `[2001:db8::1]:25`, or the one known."""
    if not name or not address or name == address:
        return address or name
    host, _, port = address.rpartition(":")
    if host == name:
        return address
    host = host if host.startswith("[") else f"[{host}]"
    return f"{name.removesuffix(':' + port)}{host}:{port}"
