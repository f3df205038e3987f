"""Where the process waits, and how long each wait was kept from the others.

`poller.Poller` gives the events of all session sockets to their owners, with Twisted's reactor inside it;
`deadlines.Deadlines` keeps the time-outs of all sessions under one timer; `turns.Turns` measures how long the event
loop was held, and by whom.  An owner is a `poller.Watched`, a `deadlines.Timed`, or both.

This room knows nobody: what a socket or a time-out means is its owner's, and closing sockets is theirs as well.
"""
