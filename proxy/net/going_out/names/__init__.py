"""Names: hosts to addresses, domains to exchanges, without ever keeping a session waiting for another's question.

`wanted` has the words that those who dial use; `resolver` the answers that are kept, `dns_query` one question under
way, `dns_message` its bytes, `dns_answer` what they mean, `name_files` what this host itself says.  It knows no
destination and no session.
"""
