"""One session at the edge: what joins the two connections, the dialling, TLS and the pure `Session`.

`carrier.Carrier` is the only one that knows both peers: it feeds the session, does what it says (`actions`), has told
what is only to be told (`telling`), and when the session has let go sees the relay to its end.  Its parts:
`ending.Ends` says who ended first and what that makes of the outcome, `looking.Onlooker` what is looked at for log and
transcript (`record`), `securing` the handshakes of bridge mode.  `shared.Shared` is what it asks of its route;
`route.RouteRuntime` is that, admits clients and makes the carriers, and stands on top.

Left to others: sockets and relaying (`proxy.net.relay`), connecting (`proxy.net.going_out`), admission
(`proxy.net.coming_in`), TLS itself (`proxy.net.tls`), and every decision about the dialogue (`proxy.smtp.session`).
"""
