"""Giving up root once the sockets are bound, for a service that is started as root without systemd."""

from __future__ import annotations

import os

from proxy.daemon.serving import CannotStart


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
