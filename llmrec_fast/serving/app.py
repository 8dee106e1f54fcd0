"""The routes. Bodies are checked by pydantic in one pass over the bytes; answers come from the lanes as bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError

from llmrec_fast import __version__
from llmrec_fast.serving import models
from llmrec_fast.serving.batching import Lane, Queue, Refused
from llmrec_fast.serving.connections import Connections
from llmrec_fast.serving.engine import EncodedSearch, Engine, encoded
from llmrec_fast.serving.entry import Entry
from llmrec_fast.serving.guard import Guard
from llmrec_fast.serving.metrics import Metrics
from llmrec_fast.serving.settings import ServeSettings
from llmrec_fast.serving.shedding import Shedding
from llmrec_fast.serving.texts import Texts

_logger = logging.getLogger("llmrec_fast.serving")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_MOST_ERRORS = 10
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": models.Problem, "description": description}
    for status, description in {
        401: "no valid token",
        404: "unknown user or item",
        408: "the body came too slowly",
        413: "the body is too large",
        415: "the body is not JSON",
        422: "the request does not fit",
        429: "too busy, see Retry-After",
        503: "not now",
        504: "no answer within the time limit",
    }.items()
}


class LeanRoute(APIRoute):
    """A route whose body is one pydantic model, validated straight from the bytes. OpenAPI is made from the signature.

    `answer` takes the body and does everything that is left to do, so that the guard can call it without the framework between.
    """

    answer: Callable[[bytes], Awaitable[Response]] | None = None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What FastAPI calls with each request."""
        endpoint: Callable[[Any], Awaitable[Response]] = self.endpoint
        if self.body_field is None:
            return super().get_route_handler()  # type: ignore[no-any-return]
        adapter: TypeAdapter[BaseModel] = TypeAdapter(self.body_field.field_info.annotation)

        async def answer(body: bytes) -> Response:
            try:
                return await endpoint(adapter.validate_json(body))
            except ValidationError as error:
                return _problem(422, "the request does not fit", _errors(error.errors(include_input=False)))
            except Refused as error:
                return _problem(error.status, error.reason)

        async def handle(request: Request) -> Response:
            return await answer(await request.body())

        self.answer = answer
        return handle


@dataclass
class Service:
    """The application with what it stands on."""

    application: Guard
    engine: Engine
    connections: Connections
    queues: tuple[Texts, Lane, Lane]

    def close(self) -> None:
        """Answer what waits, then flush the log."""
        for queue in self.queues:
            queue.close()
        self.engine.close()


def create_app(engine: Engine, settings: ServeSettings) -> Service:
    """The ASGI application (`.application`) over a recommender; its lifespan's end closes the service."""
    read, write = (
        Lane(name, answer, capacity=settings.queue, most=settings.batch, timeout=settings.timeout)
        for name, answer in (("read", engine.read), ("write", engine.write))
    )
    text = Texts("text", capacity=settings.queue, timeout=settings.timeout)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await text.warm(engine.recommender)
        yield
        await asyncio.to_thread(service.close)

    # the pages of FastAPI's own documentation load scripts from elsewhere: only the document itself is served
    app = FastAPI(
        title="llmrec_fast",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.router.route_class = LeanRoute

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _problem(error.status, error.reason)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _problem(422, "the request does not fit", _errors(error.errors()))

    def route(method: str, path: str, model: type[BaseModel]) -> Callable[[Any], Any]:
        return app.api_route(path, methods=[method], response_model=model, responses=_PROBLEMS)  # type: ignore[no-any-return]

    async def answered(lane: Lane, request: BaseModel | EncodedSearch) -> Response:
        return Response(await lane.ask(request), media_type="application/json")

    @route("POST", "/recommend", models.Recommended)
    async def recommend(request: models.RecommendRequest) -> Response:
        """The best items for known users, or for someone who likes the items given."""
        return await answered(read, request)

    @route("GET", "/recommend", models.Recommended)
    async def recommend_one(query: Annotated[models.RecommendQuery, Query()]) -> Response:
        """The best items for one user."""
        return await answered(read, query)

    @route("POST", "/similar", models.Recommended)
    async def similar(request: models.SimilarRequest) -> Response:
        """The items nearest to each item given."""
        return await answered(read, request)

    @route("POST", "/explain", models.Explained)
    async def explain(request: models.ExplainRequest) -> Response:
        """A score by feature and by item of the history."""
        return await answered(read, request)

    @route("POST", "/search", models.Recommended)
    async def search(request: models.SearchRequest) -> Response:
        """The items nearest to each text given."""
        recommender = engine.recommender
        vectors = await text.vectors(recommender, request.texts)
        return await answered(read, EncodedSearch(request, vectors, recommender))

    @route("POST", "/encode", models.Encoded)
    async def encode(request: models.EncodeRequest) -> Response:
        """Vectors of texts, by the recommender's encoder."""
        vectors = await text.vectors(engine.recommender, request.texts)
        return Response(await asyncio.to_thread(encoded, vectors), media_type="application/json")

    @route("POST", "/events", models.Written)
    async def events(request: models.EventsRequest) -> Response:
        """Record events; the answer comes when the log has them, as durable as the fsync policy says."""
        return await answered(write, request)

    @route("POST", "/items", models.Written)
    async def upsert_items(request: models.ItemsRequest) -> Response:
        """Add items, or describe known ones anew."""
        return await answered(write, request)

    @route("DELETE", "/items", models.Written)
    async def remove_items(request: models.RemoveRequest) -> Response:
        """Take items out of the catalogue."""
        return await answered(write, request)

    queues = (text, read, write)
    _add_operations(app, engine, settings, metrics, queues)
    for path, (name, kind) in _PAGE.items():
        app.add_api_route(path, _file(name, kind), include_in_schema=False)

    lanes: dict[str, Queue] = {"/recommend": read, "/similar": read, "/explain": read, "/search": text, "/encode": text}
    lanes |= {"/events": write, "/items": write}
    entry = Entry(settings)
    request_timeout = settings.body_timeout + settings.timeout + 1
    connections = Connections(settings.body_timeout, request_timeout, Shedding(lanes, metrics, entry))
    direct = {
        (method, route.path): route.answer
        for route in app.routes
        if isinstance(route, LeanRoute) and route.answer is not None
        for method in route.methods
    }
    guard = Guard(app, settings, entry, lanes, metrics, connections, direct)
    service = Service(guard, engine, connections, queues)
    return service


def _add_operations(
    app: FastAPI, engine: Engine, settings: ServeSettings, metrics: Metrics, queues: Sequence[Queue]
) -> None:
    """What those who run the service ask for."""
    reloading = asyncio.Lock()

    @app.post("/admin/reload", responses=_PROBLEMS)
    async def reload() -> dict[str, int]:
        """Open the folder anew and answer from it. Needs a token."""
        if settings.token is None:
            raise Refused(403, "reloading over HTTP needs a service with a token; or send the process SIGHUP")
        if reloading.locked():
            raise Refused(409, "a reload is under way")
        async with reloading:
            succeeded = await asyncio.to_thread(reload_quietly, engine)
        if not succeeded:
            raise Refused(503, _stale(engine))
        return {"items": engine.recommender.item_count}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: _PROBLEMS[503]})
    async def readyz() -> dict[str, str]:
        """The service can read and write; `reload` says so if it does from an older snapshot than the folder's."""
        if not engine.writable:
            raise Refused(503, "the folder cannot be written now" if engine.reload_failure is None else _stale(engine))
        if engine.reload_failure is not None:
            return {"status": "ready", "reload": _stale(engine)}
        return {"status": "ready"}

    @app.get("/metrics")
    async def exposition() -> Response:
        """For Prometheus."""
        gauges = {
            "items": engine.recommender.item_count,
            "writable": int(engine.writable),
            "reload_failed": int(engine.reload_failure is not None),
        }
        shown = metrics.exposition(queues, gauges)
        return Response(shown, media_type="text/plain; version=0.0.4")


def reload_quietly(engine: Engine) -> bool:
    """Reload; whether it succeeded. What failed is logged by its kind (a message may hold ids), and /readyz says so."""
    try:
        engine.reload()
    except Exception as error:
        _logger.error("reloading failed: %s; %s", type(error).__name__, _stale(engine))
        return False
    _logger.info("reloaded: %d items", engine.recommender.item_count)
    return True


def _stale(engine: Engine) -> str:
    """What a failed reload means for those who ask."""
    writing = "so does writing" if engine.writable else "writing is refused"
    return f"the folder could not be opened; reading goes on from the old snapshot, {writing}"


def _file(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = files("llmrec_fast.serving").joinpath("page", name).read_bytes()
    headers = {
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }

    async def page() -> Response:
        return Response(content, media_type=kind, headers=headers)

    return page


def _problem(status: int, reason: str, errors: list[str] | None = None) -> Response:
    problem = models.Problem(detail=reason, errors=errors or [])
    headers = {"retry-after": "1"} if status in (429, 503) else None
    return Response(problem.model_dump_json(), status, headers, "application/json")


def _errors(errors: Any) -> list[str]:
    """Where and what, without the values; names of unknown fields are the caller's own and may not even be text."""
    return [f"{'.'.join(str(part)[:40] for part in e['loc'])}: {e['msg']}"[:200] for e in errors[:_MOST_ERRORS]]
