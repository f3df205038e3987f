"""`python -m proxy`: the same as the command `ehlo-proxy`."""

from proxy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
