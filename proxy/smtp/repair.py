"""EHLO reply and policy in, repaired reply and findings out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from proxy.smtp.findings import Finding


@dataclass(frozen=True, slots=True)
class RepairPolicy:
    mode: str = "repair"
    strict: bool = False
    greeting: bytes = b""
    remove: tuple[bytes, ...] = ()
    add: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class EhloContext:
    banner: bytes = b""
    destination_name: bytes = b""
    destination_address: bytes = b""
    client_name: bytes = b""
    inside_tls: bool = False
    hide_starttls: bool = False
    offer_starttls: bool = False
    client_trusted: bool = True


@dataclass(frozen=True, slots=True)
class RepairResult:
    reply: bytes
    changed: bool
    findings: tuple[Finding, ...]
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    refused: bool
    keywords: frozenset[bytes]
    offers_xclient: bool
    offered: frozenset[bytes] = frozenset()


def repair_reply(
    raw: bytes,
    policy: RepairPolicy,
    context: EhloContext,
    ended_early: bool = False,
    unterminated: bool = False,
) -> RepairResult:
    lines = tuple(line.rstrip(b"\r") for line in raw.split(b"\n") if line)
    return RepairResult(raw, False, (), lines, lines, not raw.startswith(b"250"), frozenset(), False)
