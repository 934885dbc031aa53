"""Detection of the machines of a training from the variables of torchrun, SageMaker and Slurm.

One process is started on each machine; training starts one more for each device. The process of the
first machine runs the step, the others run ``cv_factory.training.distributed.node_agent``.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cv_factory.errors import TrainingError

#: Port of the first machine where the environment sets none.
_DEFAULT_PORT = 29_400


@dataclass(frozen=True)
class Nodes:
    """The machines of a training.

    Attributes:
        count: Number of machines.
        rank: Number of this machine, from 0.
        address: Host name or IP address of the first machine.
        port: On which the first machine listens; 0 on a single machine.
    """

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def detect_nodes(environment: Mapping[str, str]) -> Nodes:
    """Read the machines from the environment; a single one where no launcher's variables are set.

    Raises:
        TrainingError: A variable is missing or malformed.
    """
    try:
        nodes = _parse(environment)
    except (KeyError, ValueError) as error:
        raise TrainingError(
            f"The environment describes training on several machines incompletely: {error!r}. "
            "Set all that the launcher (torchrun, SageMaker or Slurm) sets."
        ) from None
    return nodes


def _parse(environment: Mapping[str, str]) -> Nodes:
    if "SM_HOSTS" in environment:
        return _parse_sagemaker(environment)
    if "SLURM_JOB_NUM_NODES" in environment:
        return _parse_slurm(environment)
    if "WORLD_SIZE" in environment:
        return _parse_torchrun(environment)
    return Nodes()


def _parse_torchrun(environment: Mapping[str, str]) -> Nodes:
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


def _parse_sagemaker(environment: Mapping[str, str]) -> Nodes:
    """Read SM_HOSTS and SM_CURRENT_HOST, as SageMaker's training toolkit sets them."""
    hosts = sorted(json.loads(environment["SM_HOSTS"]))
    if len(hosts) == 1:
        return Nodes()
    return Nodes(len(hosts), hosts.index(environment["SM_CURRENT_HOST"]), hosts[0], _DEFAULT_PORT)


def _parse_slurm(environment: Mapping[str, str]) -> Nodes:
    """Read SLURM_JOB_NUM_NODES, SLURM_JOB_NODELIST, SLURM_NODEID and SLURM_JOB_ID of ``srun``."""
    count = int(environment["SLURM_JOB_NUM_NODES"])
    if count == 1:
        return Nodes()
    address = expand_hosts(environment["SLURM_JOB_NODELIST"])[0]
    # Jobs that share a machine do not share a port.
    port = _DEFAULT_PORT + int(environment["SLURM_JOB_ID"]) % 10_000
    return Nodes(count, int(environment["SLURM_NODEID"]), address, port)


def expand_hosts(host_list: str) -> list[str]:
    """Return the names in a Slurm list of hosts, such as ``gpu[01-03,7],login``.

    Raises:
        ValueError: It is malformed.
    """
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", host_list):
        match = re.fullmatch(r"([^\[\]]*)(?:\[([^\]]*)\])?([^\[\]]*)", part)
        if match is None:
            raise ValueError(f"{host_list!r} is not a Slurm host list")
        head, ranges, tail = match.groups(default="")
        if not ranges:
            names.append(head)
            continue
        for numbers in ranges.split(","):
            first, _, last = numbers.partition("-")
            for number in range(int(first), int(last or first) + 1):
                names.append(f"{head}{number:0{len(first)}d}{tail}")
    return names
