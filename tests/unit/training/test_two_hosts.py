"""Training on two machines: two network namespaces joined by a virtual cable."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cv_factory.training.checkpoint import DIRECTORY_VARIABLE
from tests.support.paths import ROOT as _ROOT
from tests.support.train_on_a_host import losses

pytestmark = pytest.mark.engines

_ADDRESSES = ("10.213.7.1", "10.213.7.2")


class Host:
    """A network namespace with one interface."""

    def __init__(self, number: int) -> None:
        self.name = f"cvf{os.getpid()}-{number}"
        self.interface = f"cvf{number}"
        self.number = number

    def start(self, shared: Path, *command: str) -> "subprocess.Popen[str]":
        """Start a command there, with the variables that torchrun would set."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            DIRECTORY_VARIABLE: str(shared),
            "WORLD_SIZE": "2",
            "RANK": str(self.number),
            "MASTER_ADDR": _ADDRESSES[0],
            "MASTER_PORT": "29500",
            "GLOO_SOCKET_IFNAME": self.interface,
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts(engine: Callable[..., str]) -> Iterator[tuple[Host, Host]]:
    engine("ip")
    pair = (Host(0), Host(1))
    try:
        for host in pair:
            _ip("netns", "add", host.name)
    except subprocess.CalledProcessError as error:
        # Needs root; reported like a missing program.
        engine(f"the right to make network namespaces ({error.stderr.strip()})")
    try:
        first, second = pair
        peer = ("peer", "name", second.interface, "netns", second.name)
        _ip("-n", first.name, "link", "add", first.interface, "type", "veth", *peer)
        for host, address in zip(pair, _ADDRESSES, strict=True):
            _ip("-n", host.name, "address", "add", f"{address}/24", "dev", host.interface)
            for name in ("lo", host.interface):
                _ip("-n", host.name, "link", "set", name, "up")
        yield pair
    finally:
        for host in pair:
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)


def test_two_hosts_train_like_one(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    step = hosts[0].start(tmp_path, "-m", "tests.support.train_on_a_host")
    node = hosts[1].start(tmp_path, "-m", "cv_factory.training.distributed.node_agent")
    output, errors = step.communicate(timeout=300)
    assert step.returncode == 0, errors
    assert node.wait(60) == 0, node.communicate()[1]
    assert "1 process on each of 2 machines" in errors
    line = next(line for line in output.splitlines() if line.startswith("HISTORY "))
    assert json.loads(line.removeprefix("HISTORY ")) == pytest.approx(losses(), rel=1e-3)
    assert not list(tmp_path.iterdir())
