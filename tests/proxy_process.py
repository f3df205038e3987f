"""The proxy as a real process, for every test that goes end to end.

    with proxy(server.port) as running:                       # one route on a free port
        sock = socket.create_connection(("127.0.0.1", running.port))
        ...
        end = running.wait_for("session-end", outcome="completed")

    with running_proxy({"route": [route(one.port, name="one"), route(two.port, name="two", xclient=True)]}) as running:
        running.port_of("two")

The configuration is a dict as `tomllib` would give it; it is written as a file, and the log is JSON unless told
otherwise.  Everything that the process says on stderr is read by a thread, so that it never blocks.  The process is
ended by its own id, and `running` tells what it costs: memory, descriptors, processor time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TOP = Path(__file__).parent.parent
START_SECONDS = 20.0  # two processors, and other tests beside
STOP_SECONDS = 10.0

Config = Mapping[str, Any]


def allowed(seconds: float) -> float:
    """So many seconds, and more where other programs want more processors than there are."""
    return seconds * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


Event = dict[str, Any]


def route(
    *destinations: int | str, name: str = "r", listen: str | Sequence[str] = "127.0.0.1:0", **keys: Any
) -> Config:
    """One `[[route]]`: destinations are loopback ports or texts; `keys` are the route's other settings."""
    return {
        "name": name,
        "listen": [listen] if isinstance(listen, str) else list(listen),
        "destination": [f"127.0.0.1:{where}" if isinstance(where, int) else where for where in destinations],
        **keys,
    }


def bridge_in(folder: Path, name: str) -> Config:
    """A route's `tls` in bridge mode: the certificates that tests lay out in a folder, and what the server's names."""
    files = {"certificate": "server.pem", "key": "server.key", "ca_file": "ca.pem"}
    return {"mode": "bridge", "verify_name": name, **{key: str(folder / file) for key, file in files.items()}}


def toml(config: Config) -> str:
    """The configuration as TOML: tables of scalars, of lists of scalars, and of tables."""
    lines: list[str] = []
    _write(config, (), lines)
    return "\n".join(lines) + "\n"


def _write(table: Config, path: tuple[str, ...], lines: list[str]) -> None:
    inner = {key: value for key, value in table.items() if _is_table(value)}
    for key, value in table.items():
        if key not in inner:
            lines.append(f"{key} = {json.dumps(value)}")
    for key, value in inner.items():
        name = ".".join((*path, key))
        for one in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            _write(one, (*path, key), lines)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


class Running:
    """A proxy that was started; `ready` has been seen unless it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.path = path  # of the configuration
        self.events: list[Event] = []
        self.lines: list[str] = []  # all of stderr
        self.noise: list[str] = []  # what is no event
        self._where: Event = {}
        self._told = threading.Condition()
        self._stopped_reading = threading.Event()
        self._blocked = threading.Event()
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # -- what it says ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        stderr = self.process.stderr
        assert stderr is not None
        fd = stderr.fileno()
        rest = b""
        while not self._closed.is_set():
            if self._blocked.is_set():
                time.sleep(0.01)
                continue
            if not select.select([fd], [], [], 0.1)[0]:
                continue
            data = os.read(fd, 65536)
            *lines, rest = (rest + data).split(b"\n")
            with self._told:
                for line in lines if data else [rest] if rest else []:
                    self._hear(line.decode("utf-8", "replace"))
                self._told.notify_all()
            if not data:
                break
        with self._told:
            self._stopped_reading.set()
            self._told.notify_all()

    def _hear(self, line: str) -> None:
        self.lines.append(line)
        try:
            event = json.loads(line)
        except ValueError:
            self.noise.append(line)
            return
        self.events.append(event)
        if event["event"] in ("ready", "reload"):
            self._where = event

    def close_stderr(self) -> None:
        """Nobody will ever read its stderr again."""
        self._closed.set()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def stop_reading(self) -> None:
        """Nobody reads its stderr any more, until `read_on`."""
        self._blocked.set()

    def read_on(self) -> None:
        self._blocked.clear()

    def of(self, event: str, **fields: Any) -> list[Event]:
        """The events of that name so far, with those fields."""
        with self._told:
            return [one for one in self.events if _fits(one, event, fields)]

    def wait_for(self, event: str, seconds: float = 10.0, *, count: int = 1, **fields: Any) -> Event:
        """The `count`th event of that name and with those fields, within that time."""
        until = time.monotonic() + seconds
        with self._told:
            while True:
                found = [one for one in self.events if _fits(one, event, fields)]
                if len(found) >= count:
                    return found[count - 1]
                left = until - time.monotonic()
                if left <= 0 or self._stopped_reading.is_set():
                    told = "\n".join(self.lines[-30:])
                    raise AssertionError(
                        f"no {event} {fields} ({len(found)} of {count}) in {seconds} s; it said:\n{told}"
                    )
                self._told.wait(left)

    # -- where it is -------------------------------------------------------------------------------------------------

    @property
    def listening(self) -> list[str]:
        """Addresses of the listeners, in the order of the configuration."""
        return list(self._where["listen"])

    @property
    def ports(self) -> list[int]:
        return [int(address.rpartition(":")[2]) for address in self.listening]

    @property
    def port(self) -> int:
        """Of the first listener."""
        return self.ports[0]

    def port_of(self, name: str) -> int:
        """Of a route with one listener, when every route has one."""
        return self.ports[self._where["routes"].index(name)]

    @property
    def admin_port(self) -> int:
        return int(self.wait_for("admin-ready")["listen"].rpartition(":")[2])

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask the admin listener: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def sessions_open(self) -> int:
        """By /status.json."""
        status, body = self.get("/status.json")
        assert status == 200
        return sum(one["sessions_open"] for one in json.loads(body)["routes"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with those labels."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.get("/metrics")[1].decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
        )

    # -- what it costs -----------------------------------------------------------------------------------------------

    @property
    def memory(self) -> int:
        """Resident bytes of the process."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def processor_seconds(self) -> float:
        """User and system time since it was started."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def comes_to_rest(self, seconds: float = 5.0) -> None:
        """Nothing spins: within that time there is a tenth of a second in which it does next to nothing."""
        until = time.monotonic() + seconds
        while True:
            busy = self.processor_seconds
            time.sleep(0.1)
            if self.processor_seconds - busy <= 0.03:
                return
            assert time.monotonic() < until, "it does not come to rest"

    @property
    def children(self) -> list[int]:
        """Process ids of its workers."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    # -- what is done to it ------------------------------------------------------------------------------------------

    def write_config(self, config: Config) -> None:
        """Another configuration for the next reload; the log stays JSON if nothing else is said."""
        new = self.path.with_suffix(".new")
        new.write_text(toml(_with_json(config)))
        new.replace(self.path)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def reload(self, config: Config | None = None, *, fails: bool = False) -> Event:
        """SIGHUP, with another configuration; the event that it brought."""
        name = "reload-failed" if fails else "reload"
        before = len(self.of(name))
        if config is not None:
            self.write_config(config)
        self.signal(signal.SIGHUP)
        return self.wait_for(name, count=before + 1)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code, within that time."""
        code = self.process.wait(seconds)
        self.read_on()
        self._stopped_reading.wait(5)
        return code

    def stop(self, patience: float = 1.0) -> int:
        """SIGTERM, and a second one when that takes longer than `patience`; the exit code."""
        if self.process.poll() is None:
            self.read_on()
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
            try:
                return self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.wait()


def _fits(one: Event, event: str, fields: Mapping[str, Any]) -> bool:
    return one.get("event") == event and all(one.get(key) == value for key, value in fields.items())


def _with_json(config: Config) -> Config:
    return {**config, "log": {"format": "json", **config.get("log", {})}}


@contextlib.contextmanager
def running_proxy(
    config: Config | None = None,
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    descriptors: int = 0,
    pass_fds: Sequence[int] = (),
    interpreter: str = sys.executable,
    directory: Path = TOP,
    ready: bool = True,
    quiet: bool = True,
) -> Iterator[Running]:
    """Start `python -m proxy run` with a configuration, or with `arguments` alone; stop it at the end.

    `descriptors`: its RLIMIT_NOFILE.  `ready`: wait for that event.  `quiet`: it is an error when it says anything
    that is no event, or tells of an error of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="ehlo-proxy-"))
    path = folder / "ehlo-proxy.toml"
    # Where somebody else's `proxy` may lie it is run as the installed command would.
    program = ["-m", "proxy"] if directory == TOP else ["-P", "-m", "proxy"]
    command = [interpreter, *program, "run", *arguments]
    if config is not None:
        path.write_text(toml(_with_json(config)))
        command += ["--config", str(path)]
    if descriptors:  # by a shell that becomes it: a preexec_fn beside the tests' threads may wait for ever
        command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=directory,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        pass_fds=pass_fds,
    )
    running = Running(process, path)
    try:
        if ready:
            running.wait_for("ready", START_SECONDS)
        yield running
    finally:
        running.stop()
        assert process.stderr is not None
        running._reader.join(5)
        process.stderr.close()
        shutil.rmtree(folder, ignore_errors=True)
    if quiet:
        ours = [*running.noise, *running.of("internal-error")]
        assert not ours, ours


@contextlib.contextmanager
def proxy(*destinations: int | str, level: str = "info", admin: bool = False, **keys: Any) -> Iterator[Running]:
    """A proxy with one route; `keys` are the route's settings, `admin` opens the admin listener."""
    config: dict[str, Any] = {"log": {"level": level}, "route": [route(*destinations, **keys)]}
    if admin:
        config["admin"] = {"listen": "127.0.0.1:0"}
    with running_proxy(config) as running:
        yield running
