"""TCP ports of this machine: free ones, taken ones, and who listens on them."""

import errno
import socket
from contextlib import ExitStack

import psutil

LOOPBACK = "127.0.0.1"
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an IPv4 or IPv6 address, or on a host's IPv4 address.

    Raises:
        OSError: The port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def reserve_port(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for child processes, which listen there with SO_REUSEPORT.

    It does not listen: connections are refused while no child does.

    Raises:
        OSError: The port is taken, or the address is none of this machine.
    """
    with listen(host, port) as probe:  # which finds others that would share the port
        family, address = probe.family, probe.getsockname()
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    reserved.bind(address)
    return reserved


def resolve_address(host: str) -> str:
    """Return the IP address that ``listen`` takes for a host.

    Raises:
        OSError: The name is not known.
    """
    return host if ":" in host else socket.gethostbyname(host)


def is_port_taken(host: str, port: int) -> bool:
    """Return whether another socket listens on a port; False where the address is the problem."""
    try:
        listen(host, port).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def find_listener(port: int) -> psutil.Process | None:
    """Return a process that listens on a TCP port; None where the system does not tell which."""
    try:
        connections = psutil.net_connections("tcp")
        pids = [c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr[1] == port]
        return next((psutil.Process(pid) for pid in pids if pid is not None), None)
    except psutil.Error:
        return None


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
