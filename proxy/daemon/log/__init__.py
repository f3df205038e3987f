"""The log: one event a line on stderr, that no peer can forge, stop, or flood.

`logs` makes an event a line of text or JSON, `values` what stands behind its keys, `forms` the whole of a line that is
told with every session; `writer` writes whole lines and never waits, `rates` holds back what comes
too often, `sessions` has the fields of a session's events and how loudly its end is told, `internal_errors` tells of
bugs.  What is said, and when, is decided by `proxy.daemon.reports`.
"""
