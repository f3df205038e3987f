"""ehlo-proxy: a transparent SMTP proxy that repairs malformed EHLO replies.

It stands between a sending mail server and a destination whose EHLO reply is broken (STARTTLS in front of the
greeting, no greeting, no end), puts the reply right, and passes the TLS negotiation through untouched.
"""

__version__ = "1.0.0"
