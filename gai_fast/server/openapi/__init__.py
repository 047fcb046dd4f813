"""The description of the HTTP API, `/openapi.json` (OpenAPI 3.1).

It is generated from what the server itself uses: the route table, the types of requests, the keys of events, the error
codes. `paths.py` adds the sentence, the parameters and the responses of each route, `schemas.py` the schemas;
`document.py` combines them.
"""
