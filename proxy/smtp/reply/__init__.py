"""One reply to EHLO: bytes in, a repaired reply and findings out.  Pure functions, but for what `repair` remembers.

`replies` and `ehlo_lines` read a line, `ehlo` follows a reply until it is over, `greeting` decides which line is the
greeting, with `names` for hosts and `extensions` for the keywords that are known; `keywords` judges one keyword line,
`reading` the whole reply, and `repair` writes it anew as the policy says.  `findings` is the catalogue of all that can
be wrong.  When a reply is awaited, how long, and what is late, is the session's (`proxy.smtp.session`).

Named by others: `repair.repair_reply`, `RepairPolicy`, `EhloContext` and `RepairResult`; `ehlo.ReplyProgress`,
`looks_like_ehlo_line` and `split_before_banner`; `findings.FINDINGS`, `Finding` and `finding`; `replies.code_of`,
`ends_reply` and `is_refusal`.
"""
