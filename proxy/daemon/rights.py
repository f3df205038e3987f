"""What the process may do: as many descriptors as the host allows it, and root given up once the sockets are bound."""

from __future__ import annotations

import os
import resource

from proxy.daemon.serving import CannotStart


def raise_descriptor_limit() -> None:
    """Lift the soft limit to the hard one.  A session takes two descriptors, the usual soft limit is 1024, kept so low
    for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # fewer sessions at a time; the listener tells those who are too many


def drop_rights(user: str) -> None:
    """Become `user`, with its groups and no way back; nothing if it is empty or we are that user.

    Raises CannotStart.  Capabilities go with the change of user (capabilities(7)), so a route that needs one after
    the start (`source = "client"`) cannot be run this way: use systemd's `AmbientCapabilities=`.
    """
    if not user:
        return
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise CannotStart(f"service.user: no user {user!r} on this host") from None
    if os.geteuid() == entry.pw_uid:
        return
    try:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except OSError as error:
        raise CannotStart(f"service.user: cannot become {user!r}: {error.strerror}") from None
