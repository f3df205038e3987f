"""One socket of a session and its other half: reading for the session, relaying unread, sending, and every way to end.

A `connection.Connection` is one end, with all of its life; `reading.Reading` is its receiving half: what the poller
tells leads to reading, for the session or to the other end.  Its parts have fields of their own: `sender.Sender` is all
that goes out (what waits, FIN, close_notify, what an error while sending means), `pace.Pace` how much a peer may have
read before it waits for the others, `relay.Flow` what goes unread from one end to the other (through a `splice.Pipe`
when it is much).  They return what happened.  `socket_ends` asks the kernel what Python's sockets don't tell.

What the bytes mean, who ended first and when it is too late is the carrier's (`proxy.net.carrier`), of which a
connection knows what `reading.Carries` asks; TLS itself is `proxy.net.tls`'s, the waiting `proxy.net.waiting`'s.
"""
