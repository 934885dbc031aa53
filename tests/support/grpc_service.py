"""An application in this process that serves gRPC."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from cv_factory.processes.ports import LOOPBACK, find_free_port
from cv_factory.serving.application import Application


@contextmanager
def served_over_grpc(app: Application, port: int | None = None) -> Iterator[str]:
    """Serve an application in an event loop of its own; yield its address, and close it."""
    port = port or find_free_port()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def start() -> Any:
        server = app.build_grpc_server()
        await server.start([LOOPBACK], port)
        return server

    with ExitStack() as stack:
        stack.callback(app.close)
        stack.callback(loop.close)
        stack.callback(thread.join)
        stack.callback(loop.call_soon_threadsafe, loop.stop)
        server = run(start())
        stack.callback(lambda: run(server.stop()))
        yield f"{LOOPBACK}:{port}"
