"""The blocks of README and docs/: what a reader is told to type, and who runs it here.

A block in `sh` is a script, one in `console` has prompts (`$ `, `# `) and what is said; the others are no commands.
A block that nobody runs says so where it stands, in a line of its own: `# untried: why`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "SECURITY.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (TOP / "docs").glob("*.md"))]
COMMANDS = {"sh", "console"}
OTHERS = {"toml", "python", "text"}


HERE = "tests/test_commands.py"
INSTALL = "tests/systemd/test_install.py::test_from_nothing_to_a_running_service_and_on_to_all_its_kinds"
# Who runs each block, by its page and first command: a test, or CI itself.
RUN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/ehlo-proxy demo"): (
        f"{HERE}::test_the_first_command_of_the_readme_shows_the_demo"
    ),
    ("README.md", "tests/run"): ".ci/run",
    ("README.md", ".venv/bin/ehlo-proxy probe mail.domain1.com"): f"{HERE}::test_the_probe_of_the_readme",
    ("README.md", ".venv/bin/ehlo-proxy run --listen 0.0.0.0:2525 --destination 192.0.2.10 --allow 198.51.100.40"): (
        f"{HERE}::test_the_first_try_of_the_readme"
    ),
    ("README.md", "ehlo-proxy check"): "tests/systemd/test_package.py::test_from_install_to_a_mail_as_the_readme_says",
    ("docs/install.md", "apt-get install -y python3-venv"): (
        "tests/systemd/test_package.py::test_from_install_to_a_mail_as_the_readme_says"
    ),
    ("docs/install.md", "VERSION=1.0.0"): INSTALL,
    ("docs/install.md", "mkdir -p /etc/ehlo-proxy"): INSTALL,
    ("docs/install.md", "cp systemd/ehlo-proxy.service /etc/systemd/system/"): INSTALL,
    ("docs/install.md", "systemctl reload ehlo-proxy"): INSTALL,
    (
        "docs/install.md",
        "cp systemd/ehlo-proxy-activated.service systemd/ehlo-proxy-25-v*.socket /etc/systemd/system/",
    ): INSTALL,
    ("docs/install.md", "install -d -m 700 /etc/ehlo-proxy/tls"): INSTALL,
    ("docs/install.md", "VERSION=1.1.0"): INSTALL,
    ("docs/install.md", "ln -sfn /opt/ehlo-proxy-1.0.0 /opt/ehlo-proxy"): INSTALL,
    ("docs/architecture.md", "tests/run"): f"{HERE}::test_the_commands_of_who_works_on_it",
    ("docs/lab.md", "ehlo-proxy simulate --finding greeting-not-first"): f"{HERE}::test_the_broken_servers_of_the_lab",
    ("docs/lab.md", "mkdir recorded"): f"{HERE}::test_a_vendors_server_is_recorded_and_played_again",
    ("docs/lab.md", "ehlo-proxy simulate --listen 127.0.0.1:2526 --save-certificate server.pem &"): (
        "tests/tools/test_lab_page.py::test_a_capture_is_read_with_the_keys_that_the_proxy_wrote"
    ),
    ("docs/install.md", "config/packaging/build-wheels dist"): f"{HERE}::test_the_wheels_are_built_by_one_command",
    ("docs/renewal.md", "systemctl reload ehlo-proxy"): "tests/systemd/test_drop_ins.py::test_a_renewal_is_a_reload",
    ("docs/renewal.md", "install -d -m 700 /etc/ehlo-proxy/tls"): (
        "tests/systemd/test_certbot.py::test_certbot_renews_and_its_hooks_reload_without_a_refused_connection"
    ),
    ("docs/renewal.md", "cat >/etc/letsencrypt/renewal-hooks/deploy/ehlo-proxy <<END"): (
        "tests/systemd/test_certbot.py::test_certbot_renews_and_its_hooks_reload_without_a_refused_connection"
    ),
}


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    heading: str
    language: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """The page and the block's first command."""
        lines = self.commands or self.text.splitlines()
        return self.page, lines[0]

    @property
    def commands(self) -> list[str]:
        """Its lines that are typed, without prompts and comments."""
        if self.language == "console":
            typed = [line[2:] for line in self.text.splitlines() if line[:2] in ("$ ", "# ")]
            return [line for line in typed if not line.startswith("untried: ")]
        lines = re.sub(r"\\\n *", "", self.text).splitlines()
        return [re.sub(r"  +# .*", "", line) for line in lines if line and not line.startswith("# ")]

    @property
    def untried(self) -> str:
        """Why nobody runs it, or empty."""
        found = re.search(r"^# untried: (.+)$", self.text, re.MULTILINE)
        return found[1] if found else ""


def blocks(page: str) -> list[Block]:
    """All of a page's fenced blocks, in order."""
    found, heading = [], ""
    for title, language, text in re.findall(
        r"^#+ (.+)$|^```(.*)\n((?:.*\n)*?)```$", (TOP / page).read_text(), re.MULTILINE
    ):
        if title:
            heading = title
        else:
            found.append(Block(page, heading, language, text))
    return found


def block(page: str, start: str) -> Block:
    """The one that somebody runs and whose first command begins so."""
    tried = [one for one in blocks(page) if one.language in COMMANDS and not one.untried]
    (found,) = [one for one in tried if one.key[1].startswith(start)]
    return found
