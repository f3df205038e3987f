"""A Postfix of our own that sends, and one that receives: child processes on loopback, everything in one folder.

`running` starts Postfix from Debian's package with its own main.cf, master.cf, queue and log below a folder that its
user can reach. It needs root, since Postfix's daemons change to theirs, and touches nothing of the system's own
Postfix. A message is handed in by sendmail(1) and routed by its recipient's domain.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.clients.lab import Certificates
from tests.loopback import child, wait_until

START_SECONDS = 45.0

MASTER = """\
{smtpd}cleanup   unix  n  -  n  -  0  cleanup
pickup    unix  n  -  n  60  1  pickup
qmgr      unix  n  -  n  300  1  qmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
bounce    unix  -  -  n  -  0  bounce
defer     unix  -  -  n  -  0  bounce
trace     unix  -  -  n  -  0  bounce
verify    unix  -  -  n  -  1  verify
flush     unix  n  -  n  1000?  0  flush
smtp      unix  -  -  n  -  -  smtp
{levels}relay     unix  -  -  n  -  -  smtp
error     unix  -  -  n  -  -  error
retry     unix  -  -  n  -  -  error
discard   unix  -  -  n  -  -  discard
tlsmgr    unix  -  -  n  1000?  1  tlsmgr
anvil     unix  -  -  n  -  1  anvil
proxymap  unix  -  -  n  -  -  proxymap
scache    unix  -  -  n  -  1  scache
postlog   unix-dgram n - n  -  1  postlogd
"""


def missing() -> str:
    """Why Postfix can't be used here, or empty."""
    if os.geteuid() != 0:
        return "Postfix needs root"
    return "" if shutil.which("postfix", path=os.environ["PATH"] + ":/usr/sbin") else "Postfix is not installed"


def version() -> str:
    return subprocess.run(
        ["/usr/sbin/postconf", "-d", "-h", "mail_version"], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


@dataclass(frozen=True, slots=True)
class Delivery:
    """What Postfix logged of one recipient: `sent`, `deferred` or `bounced`, and its reason."""

    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Postfix:
    folder: Path
    config: Path

    @property
    def log(self) -> str:
        path = self.folder / "postfix.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def submit(self, sender: str, recipient: str, message: bytes) -> None:
        """Into the queue; `message` has CRLF line ends, which sendmail(1) wants as LF."""
        command = ["/usr/sbin/sendmail", "-C", str(self.config), "-f", sender, "-i", recipient]
        done = subprocess.run(
            command, input=message.replace(b"\r\n", b"\n"), capture_output=True, check=False, timeout=20
        )
        assert done.returncode == 0, done.stderr.decode()

    def delivery(self, recipient: str, seconds: float) -> Delivery | None:
        """The first outcome of the recipient in the log, waiting so long for it."""
        wanted = re.compile(rf"to=<{re.escape(recipient)}>.* status=(\w+) \((.*)\)$", re.MULTILINE)
        until = time.monotonic() + seconds
        while True:
            if found := wanted.search(self.log):
                return Delivery(found[1], found[2])
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)

    def flush(self) -> None:
        """Try what was deferred again, now."""
        subprocess.run(
            ["/usr/sbin/postqueue", "-c", str(self.config), "-f"], check=True, capture_output=True, timeout=20
        )


@contextlib.contextmanager
def running(
    folder: Path,
    certificates: Certificates,
    transports: Mapping[str, str],
    levels: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
    listen: int = 0,
    options: Mapping[str, str] | None = None,
) -> Iterator[Postfix]:
    """Postfix in `folder`, which must be reachable by every user.

    `levels` are ways to send, by name, each with its TLS policy in the words of smtp_tls_policy_maps; `transports`
    says how and where a recipient's domain goes (`LEVEL:[127.0.0.1]:2525`). All other mail goes by `smtp`, which
    requires TLS and takes any certificate. `settings` is more of main.cf, `listen` a port for its own smtpd, and
    `options` are further settings of a way, by its name.
    """
    config, queue, data = folder / "config", folder / "queue", folder / "data"
    for one in (config, queue, data):
        one.mkdir(parents=True)
    shutil.chown(data, "postfix")

    hops = ", ".join(f"{{ {domain} = {hop} }}" for domain, hop in transports.items())
    main = {
        "compatibility_level": "3.6",
        "queue_directory": str(queue),
        "data_directory": str(data),
        "command_directory": "/usr/sbin",
        "daemon_directory": "/usr/lib/postfix/sbin",
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        "maillog_file_prefixes": str(folder),
        "maillog_file": str(folder / "postfix.log"),
        "myhostname": "sender.example",
        "mydestination": "",
        "alias_maps": "",
        "local_transport": "error:nothing is local here",
        "inet_interfaces": "loopback-only",
        "inet_protocols": "ipv4",
        "smtp_host_lookup": "native",
        "smtp_dns_support_level": "disabled",
        "smtp_tls_security_level": "encrypt",
        "smtp_tls_CAfile": str(certificates.ca),
        "smtp_tls_loglevel": "1",
        "smtp_connect_timeout": "15s",
        "smtp_helo_timeout": "15s",
        "smtp_starttls_timeout": "15s",
        "smtp_mail_timeout": "15s",
        "smtp_quit_timeout": "15s",
        "minimal_backoff_time": "600s",
        "queue_run_delay": "600s",
        "transport_maps": f"inline:{{{hops}}}" if hops else "",
        **(settings or {}),
    }
    (config / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
    smtpd = f"127.0.0.1:{listen} inet n - n - - smtpd\n" if listen else ""
    ways = "".join(
        f"{name} unix - - n - - smtp\n  -o {{ smtp_tls_policy_maps = static:{{{policy}}} }}\n"
        + (f"  -o {{ {options[name]} }}\n" if options and name in options else "")
        for name, policy in levels.items()
    )
    (config / "master.cf").write_text(MASTER.format(smtpd=smtpd, levels=ways))
    started = Postfix(folder, config)
    with child(["/usr/sbin/postfix", "-c", config, "start-fg"], folder / "start.log"):
        try:
            ready = wait_until_ready(started)
            assert ready, f"{(folder / 'start.log').read_text()}\n{started.log}"
            yield started
        finally:  # the master is no child of start-fg's: it is told by its own pid file
            subprocess.run(
                ["/usr/sbin/postfix", "-c", str(config), "stop"], capture_output=True, check=False, timeout=30
            )


def wait_until_ready(started: Postfix) -> bool:
    with contextlib.suppress(AssertionError):
        return wait_until(lambda: "daemon started" in started.log, START_SECONDS, "Postfix starts")
    return False


def receiver(folder: Path) -> dict[str, str]:
    """Settings of a Postfix that takes mail over TLS from this host, throws it away, and refuses one sender domain."""
    return {
        "myhostname": "receiver.example",
        "mynetworks": "127.0.0.0/8",
        "default_transport": "discard:",
        "transport_maps": "",
        "smtpd_tls_cert_file": str(folder / "server.pem"),
        "smtpd_tls_key_file": str(folder / "server.key"),
        "smtpd_tls_security_level": "may",
        "smtpd_recipient_restrictions": "permit_mynetworks, reject",
        "smtpd_sender_restrictions": "check_sender_access inline:{ {refused.example = REJECT no} }",
    }
