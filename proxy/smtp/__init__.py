"""The core: SMTP and nothing else.

Bytes and a time go in, actions and a deadline come out.  Nothing here knows Twisted, a socket, a clock or a log.

**The EHLO reply.**  `lines.py` cuts bytes into lines.  `replies.py` tells codes and ends, `ehlo_lines.py` reads
a line of the EHLO reply as kindly as can be, and `ehlo.py` follows the reply until it is over.  `greeting.py` decides
which of its lines is the greeting, `names.py` what a host name is, `extensions.py` which keywords are known and what
may follow them.  `keywords.py` judges one keyword line; `repair.py` judges the whole and writes it anew.  Each way
of being wrong stands in `findings.py`, once: its id, its clause, who breaks on it, what is done; what goes wrong beside
the reply, in the dialogue and in a handshake, in `faults.py`.

**The session.**  `session/session.py` has one `Session` a client: what an edge calls (`client_data`, `server_data`,
`server_ended`, `time_passed` ...), each with the time; each returns a list of the actions of `events.py`, to be carried
out in order.  It is one object, put together of parts.  Each part has its own few fields, which nobody else writes,
and says what happened; calls only go down:

    session.py     the table of phases, and what each means for what an edge tells
      dialogue.py  what follows from a command, and from a reply
        errands.py what the proxy says to the server by itself, and what follows from the reply
        ends.py    refusals, lost peers, time-outs, injections, the next server
          parts/   client, server: what each said and is known to be · answers: the server's lines, by what is owed ·
                   held: a reply that is not shown yet · late: lines behind the end of one · talk: the output, and what
                   is owed for it · trust: XCLIENT · bridge: TLS on each side by itself

`commands.py` tells the few verbs that are read, `notices.py` writes the few replies that are the proxy's own,
`policy.py` is what the operator wants and what sessions of one destination learn from each other, `terms.py` names
phases, kinds of reply and limits.

What keeps it right: every command that is read has exactly one reply, so `owed`, a queue, says what comes next.  Bytes
are in one place at a time: what the client says waits in its line buffer, what the server says is a partial line in its
own, or held because it is an EHLO reply, the reply to STARTTLS, or the proxy's own affair.  All else is forwarded at
once.  At the first command that is not read the client's direction is let go for good, and the server's when the
replies still owed are through; both are then a wire, and `Session` is dropped.  Nothing is held without bound: 64 KiB
of the client's (the edge stops reading), 16 KiB of a line, 64 KiB of a reply, 1000 replies owed; and no call works
through more than 100 commands.

Where a peer breaks the rules the outcome is written down: pass on as it came (a reply too long), remove (late EHLO
lines that answer nothing), or end with a 421 that says why.  Never guess which reply a line belongs to: a mail could be
taken for accepted that was not.

A value that a peer sent is never an exception: a function returns what it made of it, and the findings.
"""
