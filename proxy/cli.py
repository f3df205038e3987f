"""The command line: `ehlo-proxy COMMAND ...`, one function a command, and its exit code.

Exit codes: 0 well; 1 the thing asked about is not well, as each command says; 2 usage or configuration; 3 the network
or the peer prevented an answer.  Results go to stdout, diagnostics to stderr.  What can be typed is in
`proxy.cli_arguments`.

Every import that costs is made by the command that needs it, so that `--help` and the commands that only read text are
quick.  This is the only module that takes a reactor.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import proxy
from proxy.daemon import signals

if TYPE_CHECKING:
    import argparse

    from proxy.settings import Settings

WORKER = "worker"  # what a parent of several workers starts itself with; not for people
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
OVERWRITTEN = """\
ehlo-proxy: another package with the import name "proxy", as proxy.py has it, is installed in the same environment and
has overwritten files of ehlo-proxy in {}.
Install ehlo-proxy into an environment of its own (docs/install.md): python3 -m venv DIR && DIR/bin/pip install ...
"""
MAX_STDIN = 16 * 1024 * 1024  # bytes; a reply over 64 KiB passes unrepaired anyway


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give back its exit code.  `argv` is without the program's name."""
    if not hasattr(proxy, "__version__"):
        print(OVERWRITTEN.format(os.path.dirname(__file__)), end="", file=sys.stderr)
        return 2
    words = sys.argv[1:] if argv is None else argv
    if len(words) == 2 and words[0] == WORKER:
        signals.hold_in_worker()
        from proxy.daemon.workers.worker import run_worker

        return run_worker(int(words[1]), _reactor())
    if words and words[0] == "run":
        signals.hold()  # first of all
    from proxy.cli_arguments import parse

    try:
        try:
            arguments = parse(argv)
            code = COMMANDS[arguments.command](arguments)
        finally:  # also of --help
            sys.stdout.flush()
    except BrokenPipeError:  # `ehlo-proxy explain | head`: nobody is left to read, and no program complains of that
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"ehlo-proxy: the output can't be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not tried again at exit
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _run(arguments: argparse.Namespace) -> int:
    from proxy.cli_arguments import DEFAULT_CONFIG
    from proxy.net.going_out.own_addresses import OwnAddresses
    from proxy.settings import SettingsError, from_arguments, load

    path: str = arguments.config or DEFAULT_CONFIG
    if not arguments.config and not arguments.listen and not os.path.exists(path):
        how = "write it (`ehlo-proxy files DIR` lays one out), give another with --config FILE, or do without"
        print(f"ehlo-proxy run: there is no {path}: {how}: --listen ADDR:PORT --destination HOST", file=sys.stderr)
        return 2
    reread: Callable[[], Settings] | None = None
    try:
        if arguments.listen:
            settings = from_arguments(
                arguments.listen,
                arguments.destination,
                arguments.allow or (),
                arguments.admin,
                arguments.record,
                OwnAddresses(),
            )
        else:
            settings = load(path, OwnAddresses())

            def reread() -> Settings:
                return load(path, OwnAddresses())

    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    from proxy.daemon.service import run

    return run(settings, _reactor(), reread=reread)


def _check(arguments: argparse.Namespace) -> int:
    from proxy.tools import check

    return check.run(arguments.file, sys.stdout, sys.stderr, strict=arguments.strict, show=arguments.show)


def _probe(arguments: argparse.Namespace) -> int:
    from proxy.tools.probe import command as probe
    from proxy.tools.probe.seen import Asked

    asked = Asked(
        ehlo=arguments.ehlo,
        name=arguments.name,
        ca_file=arguments.ca,
        implicit_tls=arguments.implicit_tls,
        tls=not arguments.no_tls,
        repeat=arguments.repeat,
        timeout=arguments.timeout,
    )
    options = probe.ProbeOptions(arguments.server, arguments.config, arguments.route, asked, arguments.format)
    return probe.run(options, sys.stdout, sys.stderr)


def _repair(arguments: argparse.Namespace) -> int:
    from proxy.tools import repair

    if sys.stdin.isatty():
        print("the EHLO reply, please; Ctrl-D on a line of its own ends it", file=sys.stderr)
    reply = sys.stdin.buffer.read(MAX_STDIN)
    return repair.run(reply, os.fsencode(arguments.banner), arguments.json, sys.stdout, sys.stderr)


def _explain(arguments: argparse.Namespace) -> int:
    from proxy.tools import explain

    return explain.explain_all() if arguments.id is None else explain.explain_one(arguments.id)


def _simulate(arguments: argparse.Namespace) -> int:
    from proxy.tools.simulate import command as simulate
    from proxy.tools.simulate.replies import DEFAULT

    options = simulate.SimulateOptions(
        listen=arguments.listen,
        finding=arguments.finding or DEFAULT,
        fault=arguments.fault or "",
        reply=arguments.reply or "",
        transcript=arguments.transcript or "",
        tls=not arguments.no_tls,
        save=arguments.save or "",
        as_json=arguments.json,
        name=arguments.name,
        broken_inside_tls=arguments.broken_inside_tls,
        save_certificate=arguments.save_certificate or "",
    )
    return simulate.run(options, _reactor(), sys.stdout, sys.stderr)


def _replay(arguments: argparse.Namespace) -> int:
    from proxy.tools import replay

    return replay.run(arguments.file, sys.stdout, sys.stderr)


def _files(arguments: argparse.Namespace) -> int:
    from proxy.tools.files import command as files

    return files.run(arguments.directory, sys.stdout, sys.stderr)


def _demo(arguments: argparse.Namespace) -> int:
    from proxy.tools import demo

    return demo.run(sys.stdout, sys.stderr)


def _reactor() -> Any:
    """Twisted's, by a clock that does not move with the wall clock: its timers and our deadlines go by the same."""
    from twisted.internet.epollreactor import EPollReactor
    from twisted.internet.main import installReactor

    reactor: Any = EPollReactor()
    reactor.seconds = time.monotonic
    installReactor(reactor)
    return reactor


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "check": _check,
    "probe": _probe,
    "repair": _repair,
    "explain": _explain,
    "simulate": _simulate,
    "replay": _replay,
    "demo": _demo,
    "files": _files,
}
