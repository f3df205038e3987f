"""What can be typed behind `ehlo-proxy`, and what `--help` says: arguments only, no command is known here.

Everything that a person types is judged here as far as it can be without looking at the host: numbers, addresses,
arguments that contradict each other.  A mistake is told on stderr with the command's usage, exit code 2.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from proxy import __version__

if TYPE_CHECKING:
    from proxy.settings.values import Destination, Endpoint

DEFAULT_CONFIG = "/etc/ehlo-proxy/ehlo-proxy.toml"
MAX_TIMEOUT = 3600.0
MAX_REPEAT = 100

ABOUT = """
    A transparent SMTP proxy that repairs malformed EHLO replies, so that senders see STARTTLS again, and passes the
    TLS negotiation through untouched.
"""
EXIT_CODES = """
    Exit codes: 0 well; 1 the thing asked about is not well; 2 usage or configuration; 3 the network or the peer
    prevented an answer. `ehlo-proxy COMMAND --help` tells more.
"""
RUN = """
    The proxy, in the foreground, with a configuration file; or, with --listen and --destination, without one. It logs
    on stderr. SIGTERM and SIGINT let running sessions end, SIGHUP reads the file again, SIGUSR1 logs the status.

    Exits with 0 after SIGTERM or SIGINT, 1 if it can't start (port taken), 2 for all that `check` would find.
"""
CHECK = """
    Reads a configuration as `run` would, and tells every error at once: file, line, route, key, value, what was
    expected; then what is legal but unwise.

    Exits with 0 or 2.
"""
PROBE = """
    Connects to a server and shows its banner and EHLO reply, line by line, with all that is wrong with it, which
    senders break on that, and the reply as the proxy would send it; then STARTTLS, the handshake, the certificate, and
    the reply inside TLS. It ends with a verdict: what cures it, and the lines of configuration to paste. Sends no mail.
    The output can be pasted into a ticket to the server's vendor.

    Exits with 0 if a sender gets all that the server offers, 1 if one would stumble, 3 if there was no answer; with
    --format nagios as a plugin does.
"""
REPAIR = """
    Reads one EHLO reply from stdin, raw bytes, and writes the repaired one to stdout; findings go to stderr.

    Exits with 0 if the reply is unchanged (a 4xx or 5xx reply always is), 1 if it was repaired, 2 if no line has a
    code.
"""
EXPLAIN = """
    Lists all that can be wrong with an EHLO reply; or, with an ID, tells one finding at length: an example, the clause
    of the RFC, which senders break on it, what the proxy does, and when that would be wrong.

    Exits with 0, or 2 for an unknown ID.
"""
SIMULATE = """
    A destination server for a lab, broken as you like, with a certificate of its own. It takes mail from anyone for
    anyone, shows it and delivers it nowhere. Its first line is `listening ADDR:PORT`.

    Two things OpenSSL of today can't do as old servers do: with dh-1024 a client that names FFDHE groups gets an alert
    in place of the 1024 bits, and sha1 is about the handshake's signature, since no certificate is signed so any more.

    Exits with 0 after SIGTERM or SIGINT, 1 if it can't start (port taken).
"""
REPLAY = """
    Shows a transcript, as `run --record` or [route.record] writes it: client and server side by side, with times and
    what was repaired.

    Exits with 0, or 2 if the file is no transcript.
"""
FILES = """
    Writes what belongs to the program below DIR: units for systemd, the explained settings and examples, monitoring,
    man pages, completions for bash, zsh and fish. It overwrites nothing.

    Exits with 0, or 1 if it can't.
"""
DEMO = """
    Starts a server with a broken EHLO reply and a strict mail client that demands TLS, on this host alone: the client
    fails; with the proxy between them it sends its message over TLS. Takes a few seconds, needs no root and no network.

    Exits with 0 if the client failed before and succeeded after.
"""

T = TypeVar("T")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; `command` is the command's name.  Raises SystemExit, as argparse does."""
    words = list(sys.argv[1:] if argv is None else argv)
    whole = parser()
    try:
        _stumble(whole, words)
        arguments, unknown = whole.parse_known_args(words)
        if unknown:
            arguments.parser.error(f"not understood: {' '.join(unknown)}")
        if arguments.command == "run":
            _settle_run(arguments)
        elif arguments.command == "probe":
            _settle_probe(arguments)
    except SystemExit as stopped:
        if stopped.code == 2 and _for_nagios(words):
            raise SystemExit(3) from None  # a plugin's UNKNOWN: 2 would be "critical"
        raise
    return arguments


def _for_nagios(words: Sequence[str]) -> bool:
    return words[:1] == ["probe"] and any(word.endswith("nagios") for word in words)


def parser() -> argparse.ArgumentParser:
    """All commands with all their options; man pages and completions are made from it, too."""
    parser = _Parser(
        "ehlo-proxy",
        description=_filled(ABOUT),
        epilog=_filled(EXIT_CODES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _version(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)

    def command(name: str, short: str, long: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=short, description=_filled(long), formatter_class=argparse.RawDescriptionHelpFormatter
        )
        _version(added)
        added.set_defaults(parser=added)
        return added

    run = command("run", "the proxy, in the foreground", RUN)
    option = run.add_argument
    option("--config", metavar="FILE", help=f"the configuration file (default: {DEFAULT_CONFIG})")
    alone = run.add_argument_group("without a file, one route")
    option = alone.add_argument
    option("--listen", metavar="ADDR:PORT", action="append", help="port 0: any free one, told by the `ready` event")
    option("--destination", metavar="HOST[:PORT]", action="append", help="the server whose EHLO reply is broken")
    option("--allow", metavar="CIDR", action="append", help="clients who may use it (default: this host only)")
    option("--admin", metavar="ADDR:PORT", help="where to serve metrics, health and the status page")
    option("--record", metavar="DIR", help="write a transcript of every session, for `replay`")

    option = command("check", "read a configuration and tell every error in it", CHECK).add_argument
    option("file", metavar="FILE", nargs="*", default=[DEFAULT_CONFIG], help=f"- is stdin; default: {DEFAULT_CONFIG}")
    option("--strict", action="store_true", help="a warning is an error")
    option("--show", action="store_true", help="print what is in force, as TOML, defaults included")

    _probe(command("probe", "connect to a server and judge what a sender gets from it", PROBE))

    option = command("repair", "an EHLO reply on stdin, the repaired one on stdout", REPAIR).add_argument
    option(
        "--banner", metavar="TEXT", default="", help="the server's whole banner line, such as '220 mx.example ESMTP'"
    )
    option("--json", action="store_true", help="one JSON document")

    option = command("explain", "what can be wrong with an EHLO reply", EXPLAIN).add_argument
    option("id", metavar="ID", nargs="?", help="one finding, such as greeting-not-first")

    simulate = command("simulate", "a broken destination server for a lab", SIMULATE)
    option = simulate.add_argument
    option("--listen", metavar="ADDR:PORT", type=_checked(_endpoint), default="127.0.0.1:2525",
           help="port 0: any free one (default: %(default)s)")  # fmt: skip
    broken = simulate.add_mutually_exclusive_group()
    broken.add_argument(
        "--finding", metavar="ID", help="how it is broken (default: greeting-not-first; none: a good one)"
    )
    broken.add_argument(
        "--fault",
        metavar="ID",
        help="what is wrong beside the reply, such as hello-too-large (`ehlo-proxy explain` lists them)",
    )
    broken.add_argument("--reply", metavar="FILE", help="a file whose bytes are its EHLO reply")
    broken.add_argument("--transcript", metavar="FILE", help="a session that [route.record] wrote: that server again")
    option("--broken-inside-tls", action="store_true", help="as broken inside TLS as in clear")
    option("--no-tls", action="store_true", help="it has no STARTTLS")
    option("--name", metavar="NAME", default="mail.domain1.com", help="its host name (default: %(default)s)")
    option("--save", metavar="DIR", help="save each mail, byte for byte, in a file of its own")
    option("--save-certificate", metavar="FILE", help="save its certificate, for a client to trust")
    option("--json", action="store_true", help="one JSON object a line")

    option = command("replay", "show a recorded session, both sides beside each other", REPLAY).add_argument
    option("file", metavar="FILE", help="the transcript")

    option = command("files", "write units, examples, man pages and completions to a folder", FILES).add_argument
    option("directory", metavar="DIR", help="the folder; made when it is not there")

    command("demo", "see it all in seconds: no root, no network", DEMO)
    return parser


def _probe(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("server", metavar="HOST[:PORT]|mx:DOMAIN", type=_checked(_destination), nargs="?",
           help="the server (default port: 25), or all exchanges of a mail domain")  # fmt: skip
    option("--config", metavar="FILE", default="", help="instead: every destination of the routes in this file")
    option("--route", metavar="NAME", default="", help="with --config: of this route alone")
    option("--ehlo", metavar="NAME", type=_checked(_ehlo_name), default="",
           help="to say in EHLO (default: this host's name)")  # fmt: skip
    option("--name", metavar="NAME", type=_checked(_server_name), default="",
           help="what its certificate has to name (default: HOST)")  # fmt: skip
    option("--ca", metavar="FILE", default="", help="PEM file with the authorities to trust (default: the system's)")
    option("--implicit-tls", action="store_true", help="TLS from the first byte (default for port 465)")
    option("--no-tls", action="store_true", help="do not try STARTTLS")
    option("--repeat", metavar="N", type=_checked(_count), default=1,
           help="connections to each address, to see whether STARTTLS is always offered")  # fmt: skip
    option("--timeout", metavar="S", type=_checked(_seconds), default=30.0,
           help="for each answer, seconds (default: 30)")  # fmt: skip
    option("--format", choices=("text", "json", "nagios", "prometheus"), default="text", help="default: text")
    option("--json", action="store_const", const="json", dest="format", help="the same as --format json")


def _settle_probe(arguments: argparse.Namespace) -> None:
    """A server or a file; NAME is for servers that are named, TLS from the first byte is TLS."""
    error: Callable[[str], Any] = arguments.parser.error
    if (arguments.server is None) == (not arguments.config):
        error("give either HOST[:PORT], mx:DOMAIN or --config FILE")
    if arguments.route and not arguments.config:
        error("--route needs --config beside it")
    if arguments.implicit_tls and arguments.no_tls:
        error("--implicit-tls and --no-tls contradict each other")


class _Parser(argparse.ArgumentParser):
    """argparse swallows an error while it writes `--help`; here a full disk is told."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            (file or sys.stderr).write(message)


def _stumble(whole: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """End with the nearest right word and the usage of that command, where a command or an option is misspelt.

    argparse tells neither: a wrong option's value is taken for an argument, and the usage is the whole program's.
    """
    (commands,) = (one for one in whole._actions if isinstance(one, argparse._SubParsersAction))
    name = next((word for word in words if not word.startswith("-")), None)
    before = words[: words.index(name)] if name is not None else words
    for word in before:
        known = list(whole._option_string_actions)
        if word.startswith("--") and not any(one.startswith(word) for one in known):
            whole.error(f"there is no option {word} in front of a command{_meant(word, known)}")
    if name is None:
        if not words:
            told = ", ".join(commands.choices)
            whole.error(f"give a command, one of {told}; `ehlo-proxy --help` tells what they do")
        return
    if name not in commands.choices:
        whole.error(f"there is no command {name!r}{_meant(name, commands.choices)}")
    command: argparse.ArgumentParser = commands.choices[name]
    known = [option for action in command._actions for option in action.option_strings]
    for word in words[words.index(name) + 1 :]:
        option = word.partition("=")[0]
        if word == "--":
            return
        if option.startswith("--") and not any(one.startswith(option) for one in known):
            command.error(f"there is no option {option}{_meant(option, known)}")


def _meant(word: str, among: Iterable[str]) -> str:
    from proxy.settings.problems import nearest

    near = nearest(word, among)
    return f"; did you mean {near}?" if near else ""


class _Version(argparse.Action):
    """`--version`: the program's, of what it stands on, and whether it is the compiled build; for a bug report."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        from OpenSSL import SSL

        from proxy.smtp import lines

        openssl = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode().split()[1]
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"ehlo-proxy {__version__} (Python {python}, Twisted {version('twisted')}, "
              f"pyOpenSSL {version('pyopenssl')}, OpenSSL {openssl})")  # fmt: skip
        print(f"build: {'pure' if lines.__file__.endswith('.py') else 'compiled'}")
        parser.exit()


def _version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action=_Version, nargs=0, help="show the versions and exit")


def _filled(text: str) -> str:
    """Paragraphs as written here, filled for the screen."""
    return "\n\n".join(textwrap.fill(" ".join(part.split()), 90) for part in text.split("\n\n"))


def _settle_run(arguments: argparse.Namespace) -> None:
    """Either a file or everything by arguments; a mix would have two meanings."""
    given = [name for name in ("listen", "destination", "allow", "admin", "record") if getattr(arguments, name)]
    error: Callable[[str], Any] = arguments.parser.error
    if arguments.config is not None and given:
        error(f"--{given[0]} and --config contradict each other: give a file, or --listen and --destination")
    for needed in ("listen", "destination"):
        if given and needed not in given:
            error(f"--{given[0]} needs --{needed} beside it")


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """`read` for argparse: what does not fit is told in the words of the settings."""

    def convert(text: str) -> T:
        from proxy.settings.problems import Unfit

        try:
            return read(text)
        except Unfit as problem:
            fault = problem.faults[0]
            near = f"; did you mean {fault.nearest}?" if fault.nearest else ""
            raise argparse.ArgumentTypeError(f"{text!r}: expected {fault.expected}{near}") from None

    return convert


def _destination(text: str) -> Destination:
    from proxy.settings.problems import unfit
    from proxy.settings.values import destination

    if text.startswith("original"):
        raise unfit(text, 'the host name or address of a server, or "mx:" and a mail domain')
    return destination(text)


def _server_name(text: str) -> str:
    from proxy.settings.values import server_name

    return server_name(text)


def _count(text: str) -> int:
    from proxy.settings.problems import unfit

    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_REPEAT):
        raise unfit(text, f"a number from 1 to {MAX_REPEAT}")
    return int(text)


def _endpoint(text: str) -> Endpoint:
    from proxy.settings.problems import unfit
    from proxy.settings.values import endpoint

    found = endpoint(text)
    if found is None:
        raise unfit(text, 'an address and a port, such as "127.0.0.1:2525"')
    return found


def _ehlo_name(text: str) -> str:
    from proxy.settings.problems import unfit

    if text and not (text.isascii() and text.isprintable() and " " not in text and len(text) <= 255):
        raise unfit(text, "a name without blanks, of at most 255 ASCII characters")
    return text


def _seconds(text: str) -> float:
    from proxy.settings.plain import duration
    from proxy.settings.problems import Unfit, unfit

    try:
        seconds = duration(text if text[-1:].isalpha() else f"{text}s")
    except Unfit:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise unfit(text, f'more than 0 and at most {MAX_TIMEOUT:.0f} seconds, such as 30, "500ms" or "2m"')
    return seconds
