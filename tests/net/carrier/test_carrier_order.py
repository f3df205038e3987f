"""The carrier: what waits for what."""

from __future__ import annotations

import pytest

from tests.bench import stages


def test_the_peer_has_its_bytes_before_the_log_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    runtime, server = stages.route_runtime()
    send = stages.Socket.send
    monkeypatch.setattr(
        stages.Socket, "send", lambda sock, data: (order.append(bytes(data)[:8].decode()), send(sock, data))[1]
    )
    for name in ("ehlo_replied", "starttls_answered"):
        tell = getattr(runtime.observer, name)
        monkeypatch.setattr(runtime.observer, name, lambda *a, name=name, tell=tell: (order.append(name), tell(*a))[1])
    for _name, do in stages.session(runtime, server):
        do()
    assert order[1:6] == ["EHLO ESA", "250-mail", "ehlo_replied", "STARTTLS", "220 Read"]
    assert order[6] == "starttls_answered"
