"""The metrics: what is counted, in one process and over all, what each metric is called, and Prometheus' text of them.

`counters` counts and adds up, `declarations` names, `exposition` writes, `process` reads what the kernel says of this
process.  Who counts is `proxy.daemon.reports`, who shows is the room above.
"""
