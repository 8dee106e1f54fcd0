"""Run the service: open the folder, listen, reload on SIGHUP, and stop without losing what was accepted."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.serving.settings import ServeSettings

# seconds a thread may keep the interpreter's lock while another waits: the event loop should not wait for a batch's Python
_SWITCH_SECONDS = 0.0005


def serve(folder: Path, settings: ServeSettings) -> None:
    """Serve the recommender saved in `folder` until SIGINT or SIGTERM.

    Raises
    ------
    MissingDependency : FastAPI or uvicorn is not installed.
    CorruptFile, InvalidInput : what `Recommender.open` says of the folder.
    """
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        raise MissingDependency('serving needs FastAPI and uvicorn: pip install "llmrec-fast[serve]"') from error
    del fastapi
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    from llmrec_fast.recommender import Recommender
    from llmrec_fast.serving.app import create_app, reload_quietly
    from llmrec_fast.serving.engine import Engine
    from llmrec_fast.warmup import warmup

    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder; Recommender.save makes one")
    # requests would wait for a compiler past their time limit on the first start on a machine
    warmup()
    sys.setswitchinterval(_SWITCH_SECONDS)
    engine = Engine(folder, lambda path: Recommender.open(path, fsync=settings.fsync, threads=settings.threads))
    service = create_app(engine, settings)
    # the catalogue stays for good: collections that walk through it would stop every request for their time
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        service.application,
        host=settings.host,
        port=settings.port,
        http=service.connections.protocol(AutoHTTPProtocol),
        ws="none",
        access_log=False,  # addresses hold ids
        log_level="info",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=max(1, int(settings.body_timeout)),
        timeout_graceful_shutdown=max(1, int(settings.shutdown_timeout)),
        h11_max_incomplete_event_size=16_384,
        lifespan="on",
    )

    logger = logging.getLogger("llmrec_fast.serving")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, lambda: asyncio.get_running_loop().run_in_executor(None, reload_quietly, engine)
        )
        await uvicorn.Server(config).serve()

    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(run())
    finally:
        service.close()
