"""What a person runs: one module a command, or a room of its own (`probe`, `simulate`, `files`).

Each reads what it is given, writes results to `out` and diagnostics to `err`, and gives back its exit code; what can be
typed, and where output can't be written, is `proxy.cli`'s.  `dialogue` draws two peers beside each other for `replay`
and `demo`; `children` starts this program's other commands for `demo` and for other programs' tests.
"""
