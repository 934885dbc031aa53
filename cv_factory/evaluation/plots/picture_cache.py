"""Pictures that processes of this user drew before, as files below the user's cache folder.

A cached training run shows the pictures of the run before it, and drawing them takes seconds. The
folder may be deleted at any time. What cannot be read or written is drawn anew.
"""

import hashlib
import os
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

#: Files of a training are about 20, of 30 kB each.
_MAX_FILES = 400
#: Bytes that end every complete PNG.
_PNG_END = b"IEND\xaeB`\x82"


def read_picture(key: str) -> bytes | None:
    """Return the PNG that was stored under a key; None without a complete one."""
    with suppress(OSError):
        png = _path(key).read_bytes()
        if png.endswith(_PNG_END):
            return png
    return None


def store_picture(key: str, png: bytes) -> None:
    """Store a PNG under a key, whole or not at all; the oldest half makes room."""
    path = _path(key)
    partial = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(png)
        partial.replace(path)
        files = list(path.parent.iterdir())
        if len(files) > _MAX_FILES:
            for old in sorted(files, key=lambda file: file.stat().st_mtime)[: _MAX_FILES // 2]:
                old.unlink(missing_ok=True)


def _path(key: str) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    digest = hashlib.sha256(f"{_code_version()}{key}".encode()).hexdigest()
    return root / "cv-factory" / "pictures" / f"{digest}.png"


@cache
def _code_version() -> str:
    """Return a digest of what draws: matplotlib's version, and the library's modules of plots."""
    digest = hashlib.sha256(version("matplotlib").encode())
    folder = Path(__file__).resolve().parent
    for file in (*sorted(folder.glob("*.py")), folder.parents[1] / "monitoring" / "plots.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()
