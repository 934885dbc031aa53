"""Starts the emulator: ``python aws_emulator PORT FOLDER``; ends on SIGTERM."""

import signal
import sys
from pathlib import Path

import builds
import endpoints
import refusals_stub
from jobs import Jobs, install
from moto.moto_server.threaded_moto_server import ThreadedMotoServer


def main() -> None:
    """Serve until SIGTERM."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    jobs = Jobs(folder)
    install(jobs)
    served = endpoints.Endpoints(folder)
    endpoints.install(served)
    builds.install(folder)
    refusals_stub.install(folder)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    jobs.kill_all()
    served.end_all()


if __name__ == "__main__":
    main()
