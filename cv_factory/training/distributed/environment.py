"""Which machines train together, read off the variables that torchrun, SageMaker and Slurm set.

One process is started on each machine; training starts one more for each device of it. The first
machine's process runs the step, the others run ``cv_factory.training.distributed.node_agent``.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cv_factory.errors import TrainingError

#: Where the first machine listens, unless the environment says otherwise.
_PORT = 29_400


@dataclass(frozen=True)
class Nodes:
    """The machines of a training.

    Attributes:
        count: How many there are.
        rank: Which of them this is, from 0.
        address: Name or address of the first.
        port: Where it listens; 0 for any free port, which only a single machine can use.
    """

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def nodes_of(environment: Mapping[str, str]) -> Nodes:
    """Find the machines; without any sign of others, this is the only one.

    Raises:
        TrainingError: A variable is missing or contradicts the others.
    """
    try:
        nodes = _read(environment)
    except (KeyError, ValueError) as error:
        raise TrainingError(
            f"The environment names other machines to train with, but not completely: {error!r}."
        ) from None
    return nodes


def _read(environment: Mapping[str, str]) -> Nodes:
    if "SM_HOSTS" in environment:
        return _sagemaker(environment)
    if "SLURM_JOB_NUM_NODES" in environment:
        return _slurm(environment)
    if "WORLD_SIZE" in environment:
        return _torchrun(environment)
    return Nodes()


def _torchrun(environment: Mapping[str, str]) -> Nodes:
    """Read RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun and Kubeflow set them.

    Raises:
        TrainingError: More than one process was started on a machine.
    """
    local = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if local != 1:
        raise TrainingError(
            f"torchrun started {local} processes on this machine. Start one "
            "(--nproc-per-node 1): training starts one for each device itself."
        )
    count = int(environment["WORLD_SIZE"])
    if count == 1:
        return Nodes()
    # torchrun itself listens on MASTER_PORT.
    port = int(environment["MASTER_PORT"]) + 1
    return Nodes(count, int(environment["RANK"]), environment["MASTER_ADDR"], port)


def _sagemaker(environment: Mapping[str, str]) -> Nodes:
    """Read SM_HOSTS and SM_CURRENT_HOST, as SageMaker's training toolkit sets them."""
    hosts = sorted(json.loads(environment["SM_HOSTS"]))
    if len(hosts) == 1:
        return Nodes()
    return Nodes(len(hosts), hosts.index(environment["SM_CURRENT_HOST"]), hosts[0], _PORT)


def _slurm(environment: Mapping[str, str]) -> Nodes:
    """Read what ``srun`` tells each task: its node, the list of nodes, and the job's number."""
    count = int(environment["SLURM_JOB_NUM_NODES"])
    if count == 1:
        return Nodes()
    address = expand_hosts(environment["SLURM_JOB_NODELIST"])[0]
    # Jobs that share a machine do not share a port.
    port = _PORT + int(environment["SLURM_JOB_ID"]) % 10_000
    return Nodes(count, int(environment["SLURM_NODEID"]), address, port)


def expand_hosts(listed: str) -> list[str]:
    """Return the names in a Slurm list of hosts, such as ``gpu[01-03,7],login``.

    Raises:
        ValueError: It is no such list.
    """
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", listed):
        match = re.fullmatch(r"([^\[\]]*)(?:\[([^\]]*)\])?([^\[\]]*)", part)
        if match is None:
            raise ValueError(f"{listed!r} is no list of hosts")
        head, ranges, tail = match.groups(default="")
        if not ranges:
            names.append(head)
            continue
        for numbers in ranges.split(","):
            first, _, last = numbers.partition("-")
            for number in range(int(first), int(last or first) + 1):
                names.append(f"{head}{number:0{len(first)}d}{tail}")
    return names
