"""The TOML that probe gives is accepted by `check` and, run, cures the fault: the server is probed again through it."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxy.smtp.reply.findings import CATALOGUE
from proxy.tools import check
from proxy.tools.simulate.replies import BROKEN
from tests.certificates import root
from tests.proxy_process import running_proxy
from tests.tools.probe.conftest import Simulated
from tests.tools.probe.looked import Looked, look

REPAIRED = sorted(id_ for id_ in BROKEN if CATALOGUE[id_].done == "repair")
FAULTS = ["fault:hello-unanswered", "fault:tls-outdated", "fault:tls10-only", "fault:dh-1024", "fault:sha1"]
CURED = [*REPAIRED, "keyword-masked", "line-too-long", "inside", *FAULTS]


@pytest.fixture(scope="module")
def through(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Looked]]:
    """Every server that has a cure, probed through a proxy that runs with the lines that probe gave."""
    directory = tmp_path_factory.mktemp("cures")
    ours = root().issue("mail.domain1.com").write(directory)

    def route(number: int, name: str) -> dict[str, Any]:
        text = look(simulated.ports[name]).conclusion.toml
        text = text.replace("/etc/ehlo-proxy/tls/certificate.pem", ours.certificate)
        text = text.replace("/etc/ehlo-proxy/tls/key.pem", ours.key)
        (directory / f"{number}.toml").write_text(text)
        out, err = io.StringIO(), io.StringIO()
        assert check.run([str(directory / f"{number}.toml")], out, err) == 0, err.getvalue()
        [only] = tomllib.loads(text)["route"]
        only["repair"] = {"unterminated_after": 4.0, **only.get("repair", {})}  # 15 s else, twice
        return {**only, "name": f"r{number}", "listen": ["127.0.0.1:0"]}

    with ThreadPoolExecutor(len(CURED)) as pool:
        routes = list(pool.map(route, range(len(CURED)), CURED))
        with running_proxy({"route": routes}) as running:
            ports = [running.port_of(each["name"]) for each in routes]
            yield dict(zip(CURED, pool.map(lambda port: look(port, 20.0), ports), strict=True))


@pytest.mark.parametrize("name", CURED)
def test_the_lines_to_paste_cure_the_fault(name: str, through: dict[str, Looked]) -> None:
    looked = through[name]
    assert (looked.conclusion.verdict, looked.seen.problem) == ("none", ""), looked.out
    assert looked.ids <= {"keyword-masked"}  # which is told beside the STARTTLS that is shown
    assert looked.seen.after_tls is not None
