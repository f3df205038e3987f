"""Coming in: listening sockets, who a client is, and whether it gets a session.

`listeners` accepts, `proxy_header` reads who is behind a balancer, `admission` has the rules and the limits, `doorstep`
holds those who have no session (yet, or at all) in bounded numbers.  What a route does with a client that was admitted
is its own affair: here it is an `Entrance`.
"""
