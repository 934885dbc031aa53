"""Entry point of every machine of a training but the first (started with ``-m``).

Waits for the first machine's step to name the job, then trains with all devices of this one.
"""

import json
import os
import sys
from pathlib import Path

from cv_factory.errors import CVFactoryError
from cv_factory.progress import say
from cv_factory.training.distributed.environment import Nodes, nodes_of
from cv_factory.training.distributed.launcher import Group, open_store, run_ranks


def main() -> int:
    """Work for one training and return the exit code."""
    try:
        join(nodes_of(os.environ))
    except CVFactoryError as error:
        say(str(error))
        return error.exit_code
    return 0


def join(nodes: Nodes) -> None:
    """Tell the first machine which devices this one has, and run the ranks that it names.

    Raises:
        TrainingError: One of them failed.
    """
    import torch

    store = open_store(nodes, is_first=False)
    store.set(f"gpus-{nodes.rank}", str(torch.cuda.device_count()))
    job = json.loads(store.get(f"job-{nodes.rank}"))
    directory = Path(job.pop("directory"))
    run_ranks(Group(directory, nodes.address, nodes.port, **job))


if __name__ == "__main__":
    sys.exit(main())
