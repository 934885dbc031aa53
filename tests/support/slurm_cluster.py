"""A Slurm cluster of this machine alone: real daemons from Debian's packages, in a folder."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cv_factory.processes.ports import find_free_ports
from tests.support.waiting import wait_until

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is moved waits for so long before it starts again; else 120 s.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=1
EnforcePartLimits=ALL
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run munged, slurmctld and slurmd.

    Args:
        folder: Of this cluster alone; short, since it holds a socket.

    Yields:
        The variables with which sbatch and the other programs find it.
    """
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            host=host,
            user=getpass.getuser(),
            folder=folder,
            ports=find_free_ports(2),
            cpus=os.cpu_count(),
        )
    )
    environment = {"SLURM_CONF": str(configuration)}
    munge = [
        "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.sock",
        f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
        f"--seed-file={folder}/munged.seed",
    ]  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []
    log = (folder / "daemons.log").open("wb")
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            daemons.append(_start(command, environment, log.fileno()))
            if command is munge:
                wait_until(lambda: (folder / "munge.sock").exists(), 60, "Slurm")
        wait_until(lambda: _is_idle(environment), 60, "Slurm")
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)
        log.close()


def _start(command: list[str], environment: dict[str, str], log: int) -> "subprocess.Popen[bytes]":
    program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
    return subprocess.Popen(
        [program, *command[1:]], env={**os.environ, **environment}, stdout=log, stderr=log
    )


def _is_idle(environment: dict[str, str]) -> bool:
    listing = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return listing.stdout.strip() == "idle"
