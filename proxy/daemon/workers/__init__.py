"""Several processes that serve as one: a parent that serves nobody, and its workers.

`parent` starts and replaces them, shows the service as a whole and passes on orders; `child` is one of them as it sees
it, `worker` what that one does. They speak over a `channel`.  `doors` are the listening sockets of all, held by the
parent; `places` the sessions of all, counted in shared memory.  Serving itself is `proxy.daemon.serving`'s, the same
as in a single process.
"""
