"""What an operator and a monitoring system ask of the running service, over HTTP.

`listening` opens the addresses, `access` says who may ask, `site` answers.  What is shown is a `status.StatusBoard`:
the sum of what every process has counted (`figures`) and knows of its destinations (`destinations`).  For a person
`page` makes it the status page, with `health` to judge each route, `plot` to draw the hour, `style` to dress it.

Who counts and remembers is `proxy.daemon.reports`; how the processes tell each other is `proxy.daemon.workers`'.
"""
