"""The parts that a session is put together of.

Each is a small thing with fields of its own, which nobody else writes; it takes bytes, a line or a time and returns
what happened.  What follows from that is decided one room up (`dialogue`, `errands`, `ends`).  On the ground floor are
`held`, `late`, `client`, `server` and `talk`, none of which knows another.  `answers` and `bridge` are given those that
they speak of, and call downwards only.
"""
