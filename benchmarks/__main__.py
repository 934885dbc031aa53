"""Runs the benchmarks: ``python -m benchmarks [NAME …]``, each a module here with a ``main()``."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the benchmarks that the arguments name, or all of them; return the first failure."""
    folder = Path(__file__).resolve().parent
    known = sorted(p.stem for p in folder.glob("*.py") if _is_benchmark(p))
    names = sys.argv[1:] or known
    if unknown := [name for name in names if name not in known]:
        sys.stderr.write(f"There is no benchmark {unknown[0]!r}; there are: {', '.join(known)}.\n")
        return 2
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
