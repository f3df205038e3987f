"""The catalogue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which one reply departs from the grammar.

    `line` is the line of the reply as it came, from 1 on; 0 means the reply as a whole.  `repaired` says that it was
    repaired, not that it could be.  `message` quotes the peer, one character an octet (Latin-1), cut short.
    """

    id: str
    line: int
    repaired: bool
    message: str
    clause: str


def quoted(peer: bytes) -> str:
    """What a peer sent, for a message: one character an octet, without its line end, cut at 60."""
    text = peer.rstrip(b"\r\n").decode("latin-1")
    return '"' + (text if len(text) <= 60 else text[:57] + "...") + '"'


def finding(id_: str, line: int, repaired: bool, said: str, peer: bytes | None = None) -> Finding:
    """A finding with its clause from the catalogue; `peer` is quoted behind `said`."""
    return Finding(id_, line, repaired, said + quoted(peer) if peer is not None else said, "")
