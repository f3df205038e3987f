"""Exim that sends one message, in the foreground: no daemon, no queue that stays, nothing of the host's own.

Debian's package can't be installed beside Postfix, so it is only unpacked, into `.programs` below the top (`tests/run`
does so, or by hand: `apt-get download exim4-daemon-light && dpkg -x exim4-daemon-light_*.deb .programs`).  That Exim
insists on a user called Debian-exim: it runs in a mount namespace of its own, with a passwd, group and hosts file that
it alone sees; which needs root.  Its TLS is GnuTLS's, unlike that of all other senders here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.certificates import NAME
from tests.clients.postfix import Delivery
from tests.loopback import TOP

LIMIT = 60.0  # seconds for one message; Exim's own time-outs are 15
USER = 65500  # an id that nobody has
PLACES = f"{os.environ['PATH']}:/usr/sbin:{TOP}/.programs/usr/sbin"
STATUS = {"=>": "sent", "==": "deferred", "**": "bounced"}
CONFIG = """\
exim_path = {folder}/exim4
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
primary_hostname = sender.example
keep_environment =
untrusted_set_sender = *
disable_ipv6
log_selector = +tls_cipher +tls_certificate_verified +smtp_no_mail
begin routers
bounces:
  driver = redirect
  senders = :
  data = :blackhole:
all:
  driver = manualroute
  route_list = * {name} byname
  self = send
  transport = remote
begin transports
remote:
  driver = smtp
{options}begin retry
* * F,1d,1h
"""


@cache
def missing() -> str:
    """Why Exim can't be used here, or empty."""
    if os.geteuid() != 0:
        return "Exim needs root"
    program = shutil.which("exim4", path=PLACES)
    if program is None:
        return "Exim is neither installed nor unpacked into .programs"
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, timeout=20).stdout
    if lacking := re.findall(r"(\S+) => not found", libraries):
        return f"Exim lacks {', '.join(lacking)}"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False, timeout=20).returncode:
        return "no mount namespace of its own for Exim here"
    return ""


@cache
def version() -> str:
    with tempfile.TemporaryDirectory(prefix="ehlo-exim-") as folder:
        said = _in_its_own_world(Path(folder), ["-bV"], b"").stdout
    found = re.search(rb"Exim version (\S+)", said)
    return found[1].decode() if found else "?"


def _in_its_own_world(folder: Path, arguments: Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run Exim with a passwd, group and hosts file from `folder`, where a copy of it is put that may start itself."""
    program = shutil.which("exim4", path=PLACES)
    assert program is not None, missing()
    folder.chmod(0o755)
    own = {
        "passwd": Path("/etc/passwd").read_text() + f"Debian-exim:x:{USER}:{USER}::/nonexistent:/usr/sbin/nologin\n",
        "group": Path("/etc/group").read_text() + f"Debian-exim:x:{USER}:\n",
        "hosts": f"127.0.0.1 {NAME} localhost\n",
    }
    for name, text in own.items():
        (folder / name).write_text(text)
    for name in ("spool", "log"):
        (folder / name).mkdir()
        os.chown(folder / name, USER, USER)
    shutil.copyfile(program, folder / "exim4")
    (folder / "exim4").chmod(0o4755)
    mounts = "".join(f"mount --bind {shlex.quote(str(folder / name))} /etc/{name} && " for name in own)
    command = ["unshare", "--mount", "sh", "-c", f"{mounts}exec {shlex.join([str(folder / 'exim4'), *arguments])}"]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=LIMIT)


def deliver(
    port: int, sender: str, recipient: str, message: bytes, options: Mapping[str, str] | None = None
) -> Delivery:
    """Send to `mail.domain1.com` at this port of 127.0.0.1, and say how it went.

    `message` has CRLF line ends; `options` are the smtp transport's, such as `hosts_require_tls = *`.  TLS is taken
    where it is offered, with any certificate, unless they say otherwise.
    """
    chosen = {"port": str(port), "command_timeout": "15s", "connect_timeout": "15s", "final_timeout": "15s"}
    chosen |= {"hosts_try_dane": "", "tls_sni": NAME, **(options or {})}
    with tempfile.TemporaryDirectory(prefix="ehlo-exim-") as name:
        folder = Path(name)
        if trusted := chosen.get("tls_verify_certificates"):  # Exim's own user may not reach where it lies
            chosen["tls_verify_certificates"] = shutil.copyfile(trusted, folder / "trusted.pem").as_posix()
        lines = "".join(f"  {key} = {value}\n" for key, value in chosen.items())
        (folder / "config").write_text(CONFIG.format(folder=folder, name=NAME, options=lines))
        arguments = ["-C", str(folder / "config"), "-odf", "-i", "-f", sender, recipient]
        done = _in_its_own_world(folder, arguments, message.replace(b"\r\n", b"\n"))
        log = (folder / "log" / "mainlog").read_text(errors="replace")
    found = re.search(rf" (=>|==|\*\*) {re.escape(recipient)} (.*)$", log, re.MULTILINE)
    assert found, f"{log}\n{done.stderr.decode(errors='replace')}"
    return Delivery(STATUS[found[1]], found[2])
