"""A recommender as an HTTP service: `llmrec-fast serve FOLDER`, or `create_app` to embed it in an ASGI server of one's own.

A request's way: `server` (sockets, signals), `connections` (slow and idle clients), `guard` (tokens, body limits, metrics),
`app` (routes), `models` (what JSON may hold), `batching` (queues), `engine` (the recommender).
FastAPI and uvicorn are the extra `[serve]`; importing this package needs neither.
"""

from llmrec_fast.serving.settings import ServeSettings

__all__ = ["ServeSettings"]
