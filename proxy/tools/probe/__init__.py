"""`probe`: asks a server what a sender would be told, finds what is wrong with it, and says what cures it.

`command` puts it together: `targets` says whom to ask, with `names` for DNS; `converse` leads the conversations, over
`wire` and with the ClientHellos of `handshake`; `seen` is what came of them.  `verdict` judges that, `report` shows it
to a person, `formats` to programs.

Nothing is sent behind EHLO inside TLS but QUIT, and nothing is raised for what a server does.  What a reply is worth is
judged as in a session, by `proxy.smtp.reply`; certificates as in bridge mode, by `proxy.net.tls`.
"""
