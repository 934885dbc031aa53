"""gRPC server of a worker process, with gRPC's own health and reflection services.

It runs in the event loop of the worker, beside HTTP; the workers of a service share its port.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from cv_factory.config.serving import LimitsConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.protocols.open_inference_grpc import OpenInferenceGrpc
from cv_factory.serving.protocols.open_inference_messages import SERVICE, descriptor_pool

_OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Clients that have gone without a word are noticed, and unused connections closed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_concurrent_streams", 1_000),
)


class GrpcServer:
    """Server of the Open Inference Protocol; call ``stop`` when it is no longer needed."""

    def __init__(
        self,
        methods: OpenInferenceGrpc,
        is_ready: Callable[[], Awaitable[bool]],
        limits: LimitsConfig,
    ) -> None:
        """Prepare; ``start`` listens.

        Args:
            methods: Of the protocol.
            is_ready: Called for each health check.
            limits: Bounds of messages and of the time until one is answered.
        """
        self._methods = methods
        self._health = _Health(is_ready)
        self._grace_period_s = limits.answer_seconds
        options = [*_OPTIONS, ("grpc.max_receive_message_length", limits.max_body_bytes)]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((methods.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, _reflected_pool())

    async def start(self, hosts: Iterable[str], port: int) -> None:
        """Listen on a port of these IP addresses.

        Raises:
            ConfigError: The port is taken.
        """
        for host in hosts:
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                self._server.add_insecure_port(address)
            except RuntimeError as error:
                raise ConfigError(
                    f"Cannot serve gRPC on {address} ({error}): choose another --grpc-port, or "
                    "stop the process that uses it."
                ) from None
        await self._server.start()
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Answer the requests that have arrived, and no others."""
        await self._health.enter_graceful_shutdown()
        self._methods.stop_streams()
        await self._server.stop(self._grace_period_s)


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """gRPC's health service, whose checks predict the golden samples."""

    def __init__(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        super().__init__()
        self._is_ready = is_ready

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Return whether a service is ready."""
        is_ready = await self._is_ready()
        statuses = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await self.set(name, statuses.SERVING if is_ready else statuses.NOT_SERVING)
        return await super().Check(request, context)


def _reflected_pool() -> DescriptorPool:
    """Return a pool of all files that clients can ask for."""
    pool = DescriptorPool()
    protocol = descriptor_pool().FindFileContainingSymbol(SERVICE)
    for file in (protocol, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(file.serialized_pb)
    return pool
