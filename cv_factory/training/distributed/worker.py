"""Entry point (``-m``) of one rank of a distributed training, started by ``rank_launcher``.

Only rank 0 writes checkpoints, the epoch log and the result.
"""

import json
import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.errors import CVFactoryError
from cv_factory.processes.worker_process import exit_with_parent
from cv_factory.progress import log_to_stderr
from cv_factory.training.distributed.rank_launcher import (
    EPOCH_LOG,
    RESULT_DIRECTORY,
    error_file,
)

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

#: Of collective operations: a lost machine is noticed after it, a dead process at once.
_COLLECTIVE_TIMEOUT = timedelta(minutes=10)


def main() -> int:
    """Train as rank ``RANK`` and return the exit code."""
    exit_with_parent()
    log_to_stderr()
    directory, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    try:
        train(directory, rank, int(os.environ["WORLD_SIZE"]))
    except Exception as error:
        report = {
            "rank": rank,
            "time": time.time(),
            "expected": isinstance(error, CVFactoryError),
            "message": str(error),
            "traceback": traceback.format_exc(),
        }
        write_atomic(error_file(directory, rank), canonical_json(report).encode())
        raise
    return 0


def train(directory: Path, rank: int, size: int) -> None:
    """Join the process group, train, and save the model on rank 0."""
    from torch import distributed

    from cv_factory.training.checkpoint import Checkpoints
    from cv_factory.training.device import limit_threads, local_device
    from cv_factory.training.distributed.process_group import ProcessGroup
    from cv_factory.training.network import fit_network
    from cv_factory.training.training_job import TrainingJob

    settings = json.loads((directory / "launch.json").read_bytes())
    job = TrainingJob.load(directory)
    limit_threads(int(os.environ["LOCAL_WORLD_SIZE"]))
    device = local_device(settings["device"], int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        store=_open_store(directory, size),
        rank=rank,
        world_size=size,
        timeout=_COLLECTIVE_TIMEOUT,
    )
    checkpoints = None
    if settings["checkpoints"]:
        directory_, keep = Path(settings["checkpoints"]), job.config.keep_checkpoints
        checkpoints = Checkpoints(directory_, keep, settings["resume_from"])

    def log_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if rank == 0:
            with (directory / EPOCH_LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps([epoch, metrics]) + "\n")

    trained = fit_network(
        job, device, ProcessGroup(rank, size), checkpoints, log_epoch, lambda _done, _n: None
    )
    if rank == 0:
        (directory / RESULT_DIRECTORY).mkdir()
        trained.save(directory / RESULT_DIRECTORY)
    distributed.destroy_process_group()


def _open_store(directory: Path, size: int) -> "Store":
    """Open the file store of a single machine, or the TCP store of the first machine's step."""
    from torch.distributed import FileStore, PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not address:
        return FileStore(str(directory / "store"), size)
    return PrefixStore(
        "ranks", TCPStore(address, port, is_master=False, timeout=_COLLECTIVE_TIMEOUT)
    )


if __name__ == "__main__":
    sys.exit(main())
