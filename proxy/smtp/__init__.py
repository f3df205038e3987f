"""The core: SMTP and nothing else.

Bytes and a time go in, actions and a deadline come out.  Nothing here knows Twisted, a socket, a clock or a log.

**The EHLO reply.**  `lines.py` cuts bytes into lines.  `replies.py` takes a reply line apart, `ehlo_lines.py` does
so for the EHLO reply, as kindly as can be, and `ehlo.py` follows the reply until it is over.  `greeting.py` decides
which of its lines is the greeting, `names.py` what a host name is, `extensions.py` which keywords are known and what
may follow them.  `keywords.py` judges one keyword line; `repair.py` judges the whole and writes it anew.  Each way
of being wrong stands in `findings.py`, once: its id, its clause, who breaks on it, what is done.

A value that a peer sent is never an exception: a function returns what it made of it, and the findings.
"""
