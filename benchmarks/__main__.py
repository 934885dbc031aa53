"""Runs benchmarks: ``python -m benchmarks [NAME …]``; each NAME is a module with ``--help``."""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the benchmarks that the arguments name, or all of them; return the first failure."""
    folder = Path(__file__).resolve().parent
    available = sorted(p.stem for p in folder.glob("*.py") if _is_benchmark(p))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(available))
    names = parser.parse_args().names or available
    if unknown := [name for name in names if name not in available]:
        parser.error(f"There is no benchmark {unknown[0]!r}; there are: {', '.join(available)}.")
    for name in names:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if code := subprocess.run(command, cwd=folder.parent).returncode:
            return code
    return 0


def _is_benchmark(file: Path) -> bool:
    """Whether a module compares something, rather than being one side of it."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return any(line.startswith("from benchmarks.harness import") for line in lines)


if __name__ == "__main__":
    sys.exit(main())
