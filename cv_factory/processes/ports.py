"""Free TCP ports of this machine."""

import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"


def find_free_port() -> int:
    """Return a port of the loopback interface that nothing listens on now."""
    return find_free_ports(1)[0]


def find_free_ports(count: int) -> list[int]:
    """Return so many different ports of the loopback interface that nothing listens on now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
