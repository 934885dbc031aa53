"""A server of an ASGI application in this event loop, with the protocols of a service's worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState

from cv_factory.serving.http_protocol import BoundedHttpProtocol


@dataclass(frozen=True)
class LoopbackServer:
    """A listening server.

    Attributes:
        host: Its IP address.
        port: Its port.
        state: Its connections and tasks.
    """

    host: str
    port: int
    state: ServerState

    def shutdown(self) -> None:
        """Ask all connections to end, as uvicorn does at SIGTERM."""
        for connection in list(self.state.connections):
            connection.shutdown()


@asynccontextmanager
async def listen(app: ASGIApp, **options: Any) -> AsyncIterator[LoopbackServer]:
    """Serve an application during a block.

    Args:
        app: The application.
        options: Of ``uvicorn.Config``.
    """
    config = Config(app, log_config=None, **options)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedHttpProtocol(config, state, {}), "127.0.0.1", 0
    )
    async with server:
        host, port = server.sockets[0].getsockname()
        yield LoopbackServer(host, port, state)
