"""The admin API, `/admin/v1/`: what an operator sees of a running server, and changes in it.

`routes.py` has the handlers, `running_streams.py` the running streams, `changes.py` the changes of a new configuration,
`samples.py` and `feed.py` the figures that dashboards get. `server/admission/admit.py` decides which callers are
admins.
"""
