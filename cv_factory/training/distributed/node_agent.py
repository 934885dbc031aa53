"""Entry point (``-m``) of every machine of a training but the first.

Waits for the first machine's step to assign ranks, then runs them on the devices of this machine.
"""

import json
import logging
import os
import sys
from pathlib import Path

from cv_factory.errors import CVFactoryError
from cv_factory.progress import log_to_stderr
from cv_factory.training.distributed.cluster_environment import Nodes, detect_nodes
from cv_factory.training.distributed.rank_launcher import LaunchSpec, open_store, run_workers

_log = logging.getLogger(__name__)


def main() -> int:
    """Take part in one training and return the exit code."""
    log_to_stderr()
    try:
        run_node(detect_nodes(os.environ))
    except CVFactoryError as error:
        _log.error("%s", error)
        return error.exit_code
    return 0


def run_node(nodes: Nodes) -> None:
    """Report this machine's GPUs to the first machine and run the ranks that it assigns.

    Raises:
        TrainingError: A rank failed.
    """
    import torch

    store = open_store(nodes, is_first=False)
    store.set(f"gpus-{nodes.rank}", str(torch.cuda.device_count()))
    job = json.loads(store.get(f"job-{nodes.rank}"))
    directory = Path(job.pop("directory"))
    run_workers(LaunchSpec(directory, nodes.address, nodes.port, **job))


if __name__ == "__main__":
    sys.exit(main())
