"""The description of the HTTP API, `/openapi.json` (OpenAPI 3.1).

It is generated from what the server itself uses: the route table, the types of requests, the keys of events, the error
codes. Each record of the table has an `Operation`; `schemas.py` adds the schemas, and `document.py` combines them.
"""
