"""The command: whom it asks, what it prints for programs, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy.settings import Destination
from proxy.tools.probe import command, formats, report
from proxy.tools.probe.names import Dane, Tlsa
from proxy.tools.probe.seen import Asked, Target
from proxy.tools.probe.targets import of_destination
from proxy.tools.probe.verdict import _name_to_verify
from tests.loopback import free_port, wait_until
from tests.proxy_process import allowed
from tests.scripted import Peer, ScriptedServer
from tests.tools.probe.conftest import Simulated
from tests.tools.probe.looked import NOW, look
from tests.tools.probe.test_names import answering, name_server


def probe(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", "probe", *words, "--timeout", "2"],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "state", "code"),
    [("none", "OK", 0), ("parameter-invalid", "WARNING", 1), ("greeting-not-first", "CRITICAL", 2)],
)
def test_nagios_gets_one_line_and_its_own_exit_codes(name: str, state: str, code: int, simulated: Simulated) -> None:
    done = probe(f"127.0.0.1:{simulated.ports[name]}", "--format", "nagios")
    assert (done.returncode, done.stderr) == (code, "")
    [line] = done.stdout.splitlines()
    assert line.startswith(f"EHLO {state} - 127.0.0.1:{simulated.ports[name]}: ")
    assert re.search(r" \| time=[0-9.]+s$", line)
    assert line.count("|") == 1


def test_nagios_gets_no_answer_as_critical_and_usage_as_unknown() -> None:
    port = free_port()
    done = probe(f"127.0.0.1:{port}", "--format", "nagios")
    assert done.returncode == 2
    assert "no answer" in done.stdout
    assert probe("--format", "nagios").returncode == 3
    assert probe("--format=nagios", "x", "--nonsense").returncode == 3
    assert probe("--config", "/nonexistent", "--format", "nagios").returncode == 3
    missing = probe("127.0.0.1:1", "--ca", "/nonexistent")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "/nonexistent: the ca_file can't be read" in missing.stderr
    assert probe("--format", "json").returncode == 2
    assert probe("--config", "/nonexistent").returncode == 2


def test_prometheus_gets_every_verdict_and_the_time(simulated: Simulated) -> None:
    looked = look(simulated.ports["greeting-not-first"])
    text = formats.as_prometheus([looked.result, looked.result], NOW)
    lines = text.splitlines()
    target = looked.result.target.label
    assert f'ehlo_probe_verdict{{target="{target}",verdict="passthrough"}} 1' in lines
    assert f'ehlo_probe_verdict{{target="{target}",verdict="none"}} 0' in lines
    assert f'ehlo_probe_finding{{target="{target}",finding="greeting-not-first"}} 1' in lines
    assert any(line.startswith(f'ehlo_probe_step_seconds{{target="{target}",step="ehlo"}} 0.') for line in lines)
    assert f"ehlo_probe_time_seconds {NOW.timestamp()}" in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert len(samples) == len({line.partition(" ")[0] for line in samples})
    assert text.endswith("\n")


def test_a_configuration_has_all_its_destinations_probed_and_the_worst_counts(
    simulated: Simulated, tmp_path: Path
) -> None:
    file = tmp_path / "ehlo-proxy.toml"
    file.write_text(
        f"""
        [[route]]
        name = "good"
        listen = ["127.0.0.1:2525"]
        destination = ["127.0.0.1:{simulated.ports["none"]}"]
        ehlo_name = "route.example"
        tls = {{ mode = "bridge", certificate = "/nobody/reads.pem", key = "/nobody/reads.key", verify = "none" }}
        [[route]]
        name = "bad"
        listen = ["127.0.0.1:2526"]
        destination = ["127.0.0.1:{simulated.ports["greeting-not-first"]}"]
        """
    )
    done = probe("--config", str(file), "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert [each["route"] for each in document["targets"]] == ["good", "bad"]
    assert [each["verdict"] for each in document["targets"]] == ["none", "passthrough"]
    assert "verdict" not in document
    assert '"127.0.0.1:2526"' in document["targets"][1]["toml"]
    good = probe("--config", str(file), "--route", "good")
    assert good.returncode == 0
    assert "C: EHLO route.example" in good.stdout
    assert "(route good)" in good.stdout
    both = probe("--config", str(file))
    assert "All targets" in both.stdout
    unknown = probe("--config", str(file), "--route", "goood")
    assert unknown.returncode == 2
    assert "no route is called goood" in unknown.stderr


def test_every_exchange_of_a_domain_is_a_target() -> None:
    from twisted.names import dns

    with name_server(answering(dns.Record_MX(20, "b.example"), dns.Record_MX(10, "a.example"))) as where:
        targets = list(of_destination(Destination("mx", "domain1.com", 25), Asked(timeout=2.0), [where]))
    assert [each.label for each in targets] == ["a.example:25", "b.example:25"]
    assert {each.destination for each in targets} == {"mx:domain1.com"}
    [lost] = of_destination(Destination("mx", "domain1.com", 25), Asked(timeout=2.0), [])
    assert command.probe(lost).worst[1].exit_code == 3


def test_where_clients_themselves_want_to_go_can_not_be_probed() -> None:
    [target] = of_destination(Destination("original", "", 0), Asked(), [])
    result = command.probe(target)
    assert (result.worst[1].exit_code, result.worst[1].verdict) == (3, "")


def test_colour_is_for_a_terminal_and_not_with_no_color(simulated: Simulated) -> None:
    where = f"127.0.0.1:{simulated.ports['none']}"
    assert "\x1b" not in probe(where).stdout
    for environment in ({}, {"NO_COLOR": "1"}):
        master, slave = os.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "proxy", "probe", where],
            stdout=slave, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm", **environment},
        ) as process:  # fmt: skip
            os.close(slave)
            said = b""
            try:
                while data := os.read(master, 65536):
                    said += data
            except OSError:  # the terminal's end
                pass
            assert process.wait(30) == 0
        os.close(master)
        assert (b"\x1b[1m" in said) is (not environment)


def test_a_terminal_shows_what_is_waited_for(simulated: Simulated) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, err = io.StringIO(), Terminal()
    server = Destination("address", "127.0.0.1", simulated.ports["none"])
    assert command.run(command.ProbeOptions(server), out, err) == 0
    assert ": handshake ... 0 s" in err.getvalue()
    assert err.getvalue().endswith("\r\x1b[2K")


def routes(ports: list[int]) -> str:
    """A configuration with a route to each."""
    return "".join(
        f'[[route]]\nname = "r{number}"\nlisten = ["127.0.0.1:{2500 + number}"]\ndestination = ["127.0.0.1:{port}"]\n'
        for number, port in enumerate(ports)
    )


def silent(peer: Peer) -> None:
    peer.rest(30)


def test_several_targets_are_asked_side_by_side_and_told_in_their_order(simulated: Simulated, tmp_path: Path) -> None:
    """Silent ones cost their time-out once, not each."""
    config = tmp_path / "proxy.toml"
    with ScriptedServer(silent) as server:
        config.write_text(routes([server.port] * 6 + [simulated.ports["none"], simulated.ports["greeting-not-first"]]))
        begun = time.monotonic()
        done = probe("--config", str(config), "--format", "json")
        assert time.monotonic() - begun < allowed(6)
    told = json.loads(done.stdout)["targets"]
    assert done.returncode == 3
    assert [each["route"] for each in told] == [f"r{number}" for number in range(8)]
    assert [each["verdict"] for each in told] == [None] * 6 + ["none", "passthrough"]
    assert done.stderr.count("did not come") == 6


def test_an_interrupt_ends_all_of_them_at_once(tmp_path: Path) -> None:
    with ScriptedServer(silent) as server:
        config = tmp_path / "proxy.toml"
        config.write_text(routes([server.port] * 3))
        command = [sys.executable, "-m", "proxy", "probe", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            wait_until(lambda: server.connections >= 3, 20, "three connections")
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == 130
            assert process.communicate(timeout=20) == (b"", b"")


def test_tlsa_records_are_told_and_change_nothing(simulated: Simulated) -> None:
    result = look(simulated.ports["none"]).result
    records = (Tlsa(3, 1, 1, b"x" * 32, True), Tlsa(3, 1, 1, b"y" * 32, False), Tlsa(0, 0, 0, b"z"))
    for dane, told in (
        (Dane("_25._tcp.h.example", True, records), "validated, says the resolver on this host"),
        (Dane("_25._tcp.h.example", False, records), "not validated"),
        (Dane("_25._tcp.h.example"), "There are none."),
        (Dane("_25._tcp.h.example", problem="DNS does not say: no answer"), "Unknown. DNS does not say"),
    ):
        known = type(result)(result.target, result.addresses, dane)
        out = io.StringIO()
        report.show([known], NOW, out)
        assert told in out.getvalue()
        assert max(map(len, out.getvalue().splitlines())) <= 80
        document = json.loads(formats.as_json([known], NOW))
        assert document["dane"]["validated"] is dane.validated
        assert [each["fits"] for each in document["dane"]["records"]] == [each.fits for each in dane.records]
        assert document["verdict"] == "none"
    assert json.loads(formats.as_json([result], NOW))["dane"] is None


def test_an_address_without_a_name_is_no_reason_against_a_certificate(tmp_path: Path) -> None:
    import ssl

    from tests.certificates import make, root
    from tests.scripted import ScriptedServer
    from tests.tools.probe.test_dialogue import Server

    paths = make("good").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(root().pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.certificate, paths.key)
    with ScriptedServer(Server().script(context)) as server:
        bare = look(server.port, ca_file=str(tmp_path / "ca.pem"))
        named = look(server.port, ca_file=str(tmp_path / "ca.pem"), name="mail.domain1.com")
        wrong = look(server.port, ca_file=str(tmp_path / "ca.pem"), name="other.example")
    assert [each.seen.tls and each.seen.tls.verified for each in (bare, named, wrong)] == [None, True, False]
    assert "NOT" not in bare.out
    assert "would be verified for mail.domain1.com" in named.out
    assert "NOT be verified for other.example" in wrong.out
    assert {each.conclusion.verdict for each in (bare, named, wrong)} == {"none"}


def test_a_target_without_a_name_has_no_tlsa_looked_up() -> None:
    assert command._dane(Target("192.0.2.1:25", "192.0.2.1", 25, Asked()), [], [("127.0.0.1", 53)]) is None
    assert command._dane(Target("host:25", "host", 25, Asked()), [], [("127.0.0.1", 53)]) is None


@pytest.mark.parametrize(
    ("destination", "host", "name", "line"),
    [
        ("mx:domain1.com", "mx1.domain1.com", "", ""),
        ("mx:domain1.com:2525", "domain1.com", "", ""),
        ("mx:domain1.com", "mx.hoster.example", "", "mx.hoster.example"),
        ("mail.domain1.com:25", "mail.domain1.com", "", ""),
        ("192.0.2.1:25", "192.0.2.1", "mail.domain1.com", "mail.domain1.com"),
    ],
)
def test_the_name_that_verified_is_set_where_the_route_would_have_another(
    destination: str, host: str, name: str, line: str
) -> None:
    assert _name_to_verify(Target(host, host, 25, Asked(name=name), destination=destination)) == line
