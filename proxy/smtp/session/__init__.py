"""The dialogue of one client and its server, as a pure object: `session.Session`.

Bytes and a time go in, the actions of `events` and a deadline come out; nothing here knows a socket or a clock.  Which
reply answers which command, what is held and for how long, when each direction is let go, and how it ends, is decided
here.  What is wrong with an EHLO reply and how it is repaired is `proxy.smtp.reply`'s, carrying the bytes the edge's
(`proxy.net`).  Begin at `session`, the table of phases; it stands on `dialogue`, `errands` and `ends`, and these on
`parts`.  An edge also needs `policy` and `events`.
"""
