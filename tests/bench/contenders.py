"""The programs that are measured, as child processes on loopback, and what the kernel says they cost.

Each contender stands between the load and the sink, is started with a configuration of its own in a temporary folder,
and is ended by its own process id. CPU is the time on a processor of the process and its descendants: from
/proc/PID/task/*/schedstat, since utime and stime have steps of 10 ms, or from those where threads have ended (stunnel).
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.clients import postfix
from tests.clients.lab import Certificates
from tests.loopback import TOP, free_port

START_SECONDS = 15.0


def allow_many_files() -> None:
    """Raise the limit on open files for us and our children, as far as we may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (1 << 16, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return


def tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found


def cpu_of(pid: int) -> float:
    """Seconds on a processor so far, of one process: exact for the threads that live, to 10 ms for those that ended."""
    living = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            living += int((task / "schedstat").read_text().split()[0])
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return max(living / 1e9, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))


def kernel_of(pid: int) -> float:
    """Seconds of that in the kernel, to 10 ms."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[12]) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> int:
    """Bytes of resident memory, of one process; what is shared is divided among those that share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(slots=True)
class Contender:
    """One program under test: `port` is where the load connects."""

    name: str
    port: int
    processes: list[subprocess.Popen[bytes]]

    def pids(self) -> list[int]:
        return [pid for process in self.processes for pid in tree(process.pid)]

    def cpu(self) -> float:
        return sum(cpu_of(pid) for pid in self.pids())

    def kernel(self) -> float:
        return sum(kernel_of(pid) for pid in self.pids())

    def memory(self) -> int:
        return sum(memory_of(pid) for pid in self.pids())

    def stop(self, patience: float = 3.0) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                for pid in reversed(tree(process.pid)):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()


@dataclass(frozen=True, slots=True)
class Build:
    """The proxy of one tree, pure or compiled, run by one interpreter, which has what the proxy needs or is lent it."""

    name: str = "ehlo-proxy"
    python: str = sys.executable
    tree: Path = TOP
    under: tuple[str, ...] = ()  # the program that runs it, as valgrind

    def environment(self) -> dict[str, str]:
        """Debian's Python has no Twisted: it is lent that of the interpreter that measures, of the same version."""
        lent = [path for path in sys.path if path.endswith("site-packages")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.tree), *lent]), "PYTHONHASHSEED": "0"}

    def run_by(self, *under: str) -> Build:
        return replace(self, under=under)


def spawn(arguments: list[str], log: Path, build: Build | None = None) -> subprocess.Popen[bytes]:
    where = build.tree if build is not None else None
    environment = build.environment() if build is not None else None
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=where, env=environment
        )


def wait_for_banner(contender: Contender, log: Path, patience: float = START_SECONDS) -> None:
    """Until a connection gets a 220; raises RuntimeError with the end of the log when it never does."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", contender.port), 1) as probe:
            probe.settimeout(patience)
            if probe.recv(512).startswith(b"220"):
                return
        time.sleep(0.05)
    said = log.read_text(errors="replace")[-500:] if log.exists() else ""
    raise RuntimeError(f"{contender.name} gave no banner:\n{said}")


def sink(bench: Path, folder: Path, *options: str) -> Contender:
    """The broken server: its certificate is `folder`/cert.pem."""
    port = free_port()
    tls = ["--tls", str(folder / "cert.pem"), str(folder / "key.pem")]
    return Contender("direct", port, [spawn([str(bench), "sink", str(port), *tls, *options], folder / "direct.log")])


@contextlib.contextmanager
def real_postfix(folder: Path) -> Iterator[Contender]:
    """A Postfix that takes each mail over TLS, on disk as ever, and then throws it away; certificate as the sink's.

    It gives no session tickets, as the sink: with one its next reply waits for the ACK of it (Nagle), in half of the
    direct sessions for 40 ms, by which the bridge would look better than it is.
    """
    port, openssl = free_port(), folder / "postfix-openssl.cnf"
    openssl.write_text("openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nNumTickets = 0\n")
    settings = {
        **postfix.receiver(folder),
        "smtpd_tls_cert_file": str(folder / "cert.pem"),
        "smtpd_tls_key_file": str(folder / "key.pem"),
        "smtpd_tls_session_cache_timeout": "0",
        "import_environment": f"MAIL_CONFIG OPENSSL_CONF={openssl}",
        "in_flow_delay": "0",  # else a session may wait for those before it
    }
    trust = Certificates(folder / "cert.pem", b"")
    with postfix.running(folder / "postfix", trust, {}, {}, settings, port) as running:
        direct = Contender("direct", port, [])
        wait_for_banner(direct, running.folder / "postfix.log")
        yield direct


def haproxy(folder: Path, sink_port: int, *, splice: bool = False, name: str = "", threads: int = 1) -> Contender:
    """HAProxy in TCP mode, with the time-outs that ehlo-proxy ships."""
    port = free_port()
    name = name or ("haproxy-splice" if splice else "haproxy")
    config = folder / f"{name}.cfg"  # 9500 sessions are what 20000 files allow
    config.write_text(
        f"global\n  nbthread {threads}\n  maxconn 9500\n  maxpipes 200\n"
        "defaults\n  mode tcp\n  timeout connect 30s\n  timeout client 30m\n  timeout server 30m\n"
        + ("  option splice-auto\n" if splice else "")
        + f"listen smtp\n  bind 127.0.0.1:{port} backlog 4096\n  maxconn 9500\n  server broken 127.0.0.1:{sink_port}\n"
    )
    return Contender(name, port, [spawn(["haproxy", "-db", "-q", "-f", str(config)], folder / f"{name}.log")])


def nginx(folder: Path, sink_port: int) -> Contender:
    """nginx's stream module, one worker."""
    port = free_port()
    config = folder / "nginx.conf"
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    config.write_text(
        (f"load_module {module};\n" if module.exists() else "")
        + f"daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.err;\n"
        "events { worker_connections 19000; }\n"
        f"stream {{ server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass 127.0.0.1:{sink_port};"
        " proxy_timeout 30m; tcp_nodelay on; } }\n"
    )
    return Contender("nginx", port, [spawn(["nginx", "-c", str(config), "-p", str(folder)], folder / "nginx.log")])


def ehlo_proxy(
    folder: Path, sink_port: int, name: str = "", service: str = "", route: str = "", build: Build | None = None
) -> Contender:
    """The proxy as shipped, log level info and metrics on; `service` and `route` are further lines of the file."""
    build = build or Build()
    name = name or build.name
    port = free_port()
    config = folder / f"{name}.toml"
    config.write_text(
        f'[service]\n{service}\n[admin]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[[route]]\nname = "bench"\nlisten = ["127.0.0.1:{port}"]\ndestination = ["127.0.0.1:{sink_port}"]\n{route}\n'
    )
    arguments = [*build.under, build.python, "-m", "proxy", "run", "--config", str(config)]
    return Contender(name, port, [spawn(arguments, folder / f"{name}.log", build)])


def ehlo_proxy_bridge(folder: Path, sink_port: int, build: Build | None = None) -> Contender:
    """The proxy ending TLS on both sides, the server's certificate checked."""
    return ehlo_proxy(
        folder,
        sink_port,
        build=build,
        route=f'[route.tls]\nmode = "bridge"\ncertificate = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n'
        f'ca_file = "{folder}/cert.pem"\nverify_name = "mail.domain1.com"\n',
    )


def two_stunnels(folder: Path, sink_port: int) -> Contender:
    """TLS ended twice by what people use today: one stunnel towards the client, one towards the server."""
    port, between = free_port(), free_port()
    program = shutil.which("stunnel4") or "stunnel"
    common = "foreground = yes\npid =\ndebug = err\nsyslog = no\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
    towards_server = folder / "stunnel-server.conf"
    towards_server.write_text(
        f"{common}[server]\nclient = yes\nprotocol = smtp\naccept = 127.0.0.1:{between}\n"
        f"connect = 127.0.0.1:{sink_port}\nCAfile = {folder}/cert.pem\nverifyChain = yes\n"
        "checkHost = mail.domain1.com\n"
    )
    towards_client = folder / "stunnel-client.conf"
    towards_client.write_text(
        f"{common}[client]\nprotocol = smtp\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{between}\n"
        f"cert = {folder}/cert.pem\nkey = {folder}/key.pem\n"
    )
    return Contender(
        "two-stunnels",
        port,
        [spawn([program, str(file)], folder / "two-stunnels.log") for file in (towards_server, towards_client)],
    )


@contextlib.contextmanager
def running(
    folder: Path, *starts: Callable[[], Contender], patience: float = START_SECONDS
) -> Iterator[list[Contender]]:
    """Start all, wait for their banners, and end all, whatever happens."""
    started: list[Contender] = []
    try:
        for start in starts:
            started.append(start())
        for contender in started:
            wait_for_banner(contender, folder / f"{contender.name}.log", patience)
        yield started
    finally:
        for contender in reversed(started):
            contender.stop(patience / 5)
