"""Resolves requirements.lock anew from pyproject.toml: for every platform, without any address."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (
    "pip compile --universal --no-emit-index-url --no-header --no-annotate --quiet "
    "--python-version 3.11 --all-extras pyproject.toml -o requirements.lock"
)


def main() -> int:
    """Run uv with the options it is given besides ours and return its exit code."""
    uv = shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")
    command = [uv, *COMMAND.split(), *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())
