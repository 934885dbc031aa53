"""An application in this process that serves gRPC."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cv_factory.processes.ports import LOOPBACK, find_free_port
from cv_factory.serving.application import Application


@contextmanager
def served_over_grpc(app: Application) -> Iterator[str]:
    """Serve an application in an event loop of its own; yield its address, and stop it."""
    port = find_free_port()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start():
        server = app.build_grpc_server()
        await server.start([LOOPBACK], port)
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"{LOOPBACK}:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        app.close()
