"""The description of the HTTP API, `/openapi.json` (OpenAPI 3.1).

It is made of what the server itself uses: the route table, the types of requests, the keys of events, the codes of
errors. `operations.py` adds the sentence, the parameters and the answers of each route, `schemas.py` the schemas,
`document.py` puts them together.
"""
