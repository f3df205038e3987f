"""The edge: sockets, time, names and TLS around the pure sessions of `proxy.smtp`.

Its rooms, from the lowest floor up: `observer` (what is told of a session, and the session's `Story`), `waiting`,
`tls`, `relay`, `going_out`, `coming_in`, `carrier`.  A lower one never names a higher one; what it needs from above is
a small Protocol of its own.  Logs, metrics and the service are `proxy.daemon`'s.
"""
