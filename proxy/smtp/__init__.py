"""The core: SMTP and nothing else.

Bytes and a time go in, actions and a deadline come out.  Nothing here knows Twisted, a socket, a clock or a log.

**The EHLO reply.**  `lines.py` cuts bytes into lines.  `replies.py` tells codes and ends, `ehlo_lines.py` reads
a line of the EHLO reply as kindly as can be, and `ehlo.py` follows the reply until it is over.  `greeting.py` decides
which of its lines is the greeting, `names.py` what a host name is, `extensions.py` which keywords are known and what
may follow them.  `keywords.py` judges one keyword line; `repair.py` judges the whole and writes it anew.  Each way
of being wrong stands in `findings.py`, once: its id, its clause, who breaks on it, what is done; what goes wrong beside
the reply, in the dialogue and in a handshake, in `faults.py`.

**The session.**  `session.py` has one `Session` a client: what an edge calls (`client_data`, `server_data`,
`server_ended`, `time_passed` ...), each with the time; each returns a list of the actions of `events.py`, to be carried
out in order.  It is one object in six parts, each built on the one before, so that each rule stands in one place:

    state.py     what is known and held; the deadline; the output of a call
    waiting.py   an EHLO reply: when it is over (`parts/late.py` judges a line that comes after that)
    answers.py   which reply answers which command: banner, STARTTLS, all others; endless lines; the server's end
    trust.py     XCLIENT: who must not get past the reading
    bridge.py    TLS on each side by itself; in pass-through only its opening is used
    session.py   the client: its commands, the letting go, drain and time-outs; the table of phases

`commands.py` tells the few verbs that are read, `notices.py` writes the few replies that are the proxy's own,
`policy.py` is what the operator wants and what sessions of one destination learn from each other.

What keeps it right: every command that is read has exactly one reply, so `owed`, a queue, says what comes next.  Bytes
are in one place at a time: what the client says waits in `client_lines`, what the server says is a partial line in
`server_lines`, or held because it is an EHLO reply, the reply to STARTTLS, or the proxy's own affair.  All else is
forwarded at once.  At the first command that is not read the client's direction is let go for good, and the server's
when the replies still owed are through; both are then a wire, and `Session` is dropped.  Nothing is held without bound:
64 KiB of the client's (the edge stops reading), 16 KiB of a line, 64 KiB of a reply, 1000 replies owed.

Where a peer breaks the rules the outcome is written down: pass on as it came (a reply too long), remove (late EHLO
lines that answer nothing), or end with a 421 that says why.  Never guess which reply a line belongs to: a mail could be
taken for accepted that was not.

A value that a peer sent is never an exception: a function returns what it made of it, and the findings.
"""
