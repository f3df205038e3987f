"""TLS of our own, for bridge mode, and the hellos of others, read in clear.

A route's two OpenSSL contexts are made in `contexts` when it is loaded.  A `SecureRoute` (`secure`) begins a handshake
on a connection and gives the verdict on a server; a `TlsChannel` (`channel`) is then what a bare socket is to a session
in clear.  `records` and `flight` look at the peer's bytes before OpenSSL has them, `identity` and `names` say whether a
server is the one that was meant, `problem` what went wrong, in words.  `client_hello` needs none of these: it reads
what passes through.  `self_signed` makes what a simulated server shows.

Everything fails closed: an exception in a verdict is a refusal, and nothing is sent inside TLS before the verdict.
OpenSSL is given no more than a portion of a peer's bytes at once.

Left to others: when a handshake is begun and what follows from its end (`proxy.net.carrier.securing`), reading and
writing through a channel (`proxy.net.relay`), what the settings may say (`proxy.settings`).
"""
