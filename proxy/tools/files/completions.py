"""Completions for bash, zsh and fish, made from the arguments: commands, options, findings, file names."""

from __future__ import annotations

import argparse

from proxy.smtp.faults import LAB
from proxy.smtp.reply.findings import FINDINGS
from proxy.tools.files.pages import subcommands, summaries


def completions() -> dict[str, str]:
    """Each shell's file by the name that the shell looks for."""
    return {"ehlo-proxy": bash(), "_ehlo-proxy": zsh(), "ehlo-proxy.fish": fish()}


def words(action: argparse.Action) -> list[str] | None:
    """What may follow an option or stand for an argument: words, or None where a file name may."""
    if action.choices is not None:
        return [str(one) for one in action.choices]
    if action.metavar == "ID":
        return sorted([*FINDINGS, *(LAB if action.dest == "fault" else ())])
    return None if action.metavar in ("FILE", "DIR") else []


def options(one: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options of a command that are shown in its help."""
    return [action for action in one._actions if action.option_strings and action.help != argparse.SUPPRESS]


def bash() -> str:
    """For bash-completion: a file `ehlo-proxy` in its folder of completions."""
    commands = " ".join(name for name, _ in subcommands())
    lines = [
        "# bash completion for ehlo-proxy, made by `ehlo-proxy files`",
        "_ehlo_proxy() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}",
        '    if [ "$COMP_CWORD" -eq 1 ]; then',
        f'        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))',
        "        return",
        "    fi",
        '    case "$command $before" in',
    ]
    for name, one in subcommands():
        for action in options(one):
            found = words(action)
            if action.nargs == 0:
                continue
            for spelled in action.option_strings:
                reply = "-f --" if found is None else f'-W "{" ".join(found)}" --'
                lines.append(f'        "{name} {spelled}") COMPREPLY=($(compgen {reply} "$word")); return ;;')
    lines += ["    esac", '    case "$command" in']
    for name, one in subcommands():
        flags = " ".join(spelled for action in options(one) for spelled in action.option_strings)
        positional = [action for action in one._actions if not action.option_strings]
        files = any(words(action) is None for action in positional)
        more = " ".join(word for action in positional for word in words(action) or ())
        lines.append(
            f'        {name}) COMPREPLY=($(compgen {"-f " if files else ""}-W "{flags} {more}" -- "$word")) ;;'
        )
    lines += ["    esac", "}", "complete -o filenames -F _ehlo_proxy ehlo-proxy"]
    return "\n".join(lines) + "\n"


def zsh() -> str:
    """For zsh: a file `_ehlo-proxy` in a folder of $fpath."""
    lines = ["#compdef ehlo-proxy", "# made by `ehlo-proxy files`", "local -a commands", "commands=("]
    lines += [f"    {_zsh(f'{name}:{_bare(_short(name))}')}" for name, _ in subcommands()]
    lines += [")", "if (( CURRENT == 2 )); then", "    _describe command commands", "    return", "fi"]
    # For _arguments the command is the program: else it would be an argument of one that takes none.
    lines += ["shift words", "(( CURRENT-- ))", "case $words[1] in"]
    for name, one in subcommands():
        lines += [f"    {name})", "        _arguments \\"]
        for action in one._actions:
            if action.help == argparse.SUPPRESS:
                continue
            found = words(action)
            after = "_files" if found is None else f"({' '.join(found)})" if found else " "
            if not action.option_strings:
                lines.append(f"            {_zsh(f'*:{action.dest}:{after}')} \\")
                continue
            for spelled in action.option_strings:
                told = "" if action.nargs == 0 else f":{_bare(action.metavar or action.dest)}:{after}"
                lines.append(f"            {_zsh(f'{spelled}[{_bare(action.help)}]{told}')} \\")
        lines += ["            && return ;;"]
    return "\n".join([*lines, "esac"]) + "\n"


def fish() -> str:
    """For fish: a file `ehlo-proxy.fish` in its folder of completions."""
    lines = ["# fish completion for ehlo-proxy, made by `ehlo-proxy files`", "complete -c ehlo-proxy -f"]
    for name, one in subcommands():
        lines.append(f"complete -c ehlo-proxy -n __fish_use_subcommand -a {name} -d {_fish(_short(name))}")
        seen = f'-n "__fish_seen_subcommand_from {name}"'
        for action in one._actions:
            if action.help == argparse.SUPPRESS:
                continue
            found = words(action)
            values = "-rF" if found is None else f'-xa "{" ".join(found)}"' if found else "-x"
            if not action.option_strings:
                if found is None:
                    lines.append(f"complete -c ehlo-proxy {seen} -F")
                elif found:
                    lines.append(f'complete -c ehlo-proxy {seen} -a "{" ".join(found)}"')
                continue
            for spelled in action.option_strings:
                kind = f"-l {spelled[2:]}" if spelled.startswith("--") else f"-s {spelled[1:]}"
                takes = "" if action.nargs == 0 else f" {values}"
                lines.append(f"complete -c ehlo-proxy {seen} {kind}{takes} -d {_fish(_bare(action.help))}")
    return "\n".join(lines) + "\n"


def _short(name: str) -> str:
    """What the command does, in the words of `--help`."""
    return summaries()[name]


def _bare(text: object) -> str:
    """For zsh: without what has a meaning there."""
    kept = str(text or "").partition(" (default")[0].replace("%%", "%")
    return " ".join(kept.split()).replace("[", "(").replace("]", ")").replace(":", ",")


def _zsh(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
