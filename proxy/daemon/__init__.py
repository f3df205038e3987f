"""The service: what an operator starts, asks, reloads and stops.

`service` chooses who serves; `daemon` is what is the same for one process and for many, `serving` the part of a process
that has the sessions, `workers` the many.  `reports` decides what is said of what the edge tells, in `log` and in
`admin`; `notify` speaks to systemd, `rights` gives up root, `signals` keeps what comes too early.  What a session is,
and everything on the network, is left to `proxy.net`; what the file may say to `proxy.settings`.
"""
