"""Starts one command, waits for it, and reports what it cost, as JSON in a file.

A process of its own and of the standard library only, because Linux charges a new process with the
peak memory of the one that started it: measured from a large parent, every child looks as large.
Usage: python -I -S measured_process.py REPORT COMMAND [ARGUMENT …]
"""

import json
import os
import sys
import time


def main() -> int:
    """Run the command that the arguments name and return 0: its own exit status is reported."""
    report, *command = sys.argv[1:]
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    content = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        # KiB on Linux, bytes on macOS.
        "peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123  (starts faster)
        json.dump(content, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
