"""Going out: from a route's destinations to one connected socket.

`destination` says which servers there are, in what order, and which addresses no name may lead to; `dialer` is what
the dials of a route share, `dial` one session's way (families raced, RFC 8305; the next destination when one fails),
`attempt` one address.  `names` below looks names up, `own_addresses` knows this host, `transparent` its interception.
What is said on the connection is left to `proxy.net.carrier`.

Why not Twisted's HostnameEndpoint: it does not race the families of RFC 8305, starts nothing early after a refusal, can
be given neither a source address nor a socket option, and ends with one error for all addresses.
"""
