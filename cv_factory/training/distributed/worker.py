"""The main module of one process of a distributed training; ``ranks`` starts it.

Only the first rank writes: checkpoints, events and the result.
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
from cv_factory.training.distributed.launcher import EVENTS, RESULT, end_with_parent, error_file

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

#: After which a silent machine counts as lost; a process that dies is noticed at once.
_TIMEOUT = timedelta(minutes=10)


def main() -> int:
    """Train as the rank that the environment names; return the exit code."""
    end_with_parent()
    directory, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    try:
        train(directory, rank, int(os.environ["WORLD_SIZE"]))
    except Exception as error:
        told = {
            "rank": rank,
            "time": time.time(),
            "expected": isinstance(error, CVFactoryError),
            "message": str(error),
            "traceback": traceback.format_exc(),
        }
        write_atomic(error_file(directory, rank), canonical_json(told).encode())
        raise
    return 0


def train(directory: Path, rank: int, size: int) -> None:
    """Join the others, train, and save what was trained if this is the first rank."""
    from torch import distributed

    from cv_factory.training.checkpoint import Checkpoints
    from cv_factory.training.device import local_device, share_cpus
    from cv_factory.training.distributed.process_group import World
    from cv_factory.training.job import TrainingJob
    from cv_factory.training.network import fit_network

    settings = json.loads((directory / "ranks.json").read_bytes())
    job = TrainingJob.load(directory)
    share_cpus(int(os.environ["LOCAL_WORLD_SIZE"]))
    device = local_device(settings["device"], int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        store=_store(directory, size),
        rank=rank,
        world_size=size,
        timeout=_TIMEOUT,
    )
    kept, keep = settings["checkpoints"], job.config.keep_checkpoints
    checkpoints = Checkpoints(Path(kept), keep, settings["first"]) if kept else None

    def tell(epoch: int, metrics: dict[str, float]) -> None:
        if rank == 0:
            with (directory / EVENTS).open("a", encoding="utf-8") as events:
                events.write(json.dumps([epoch, metrics]) + "\n")

    trained = fit_network(job, device, World(rank, size), checkpoints, tell, lambda _done, _n: None)
    if rank == 0:
        (directory / RESULT).mkdir()
        trained.save(directory / RESULT)
    distributed.destroy_process_group()


def _store(directory: Path, size: int) -> "Store":
    """Return a file of this machine, or the store of the first one's step."""
    from torch.distributed import FileStore, PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not address:
        return FileStore(str(directory / "store"), size)
    return PrefixStore("ranks", TCPStore(address, port, is_master=False, timeout=_TIMEOUT))


if __name__ == "__main__":
    sys.exit(main())
