"""The admin API, `/admin/v1/`: what an operator sees of a running server, and does to it.

`routes.py` has the handlers, `streams.py` the streams that run, `changes.py` what a new configuration changes,
`samples.py` and `feed.py` the figures that are pushed to dashboards. Who is an admin is decided by
`server/admission/admit.py`.
"""
