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

from cv_factory.code_fingerprint import code_fingerprint

#: Files of a training are about 20, of 30 kB each.
_MAX_FILES = 400
#: Bytes that end every complete PNG.
_PNG_END = b"IEND\xaeB`\x82"


def read_picture(key: str) -> bytes | None:
    """Return the PNG that was stored under a key (hexadecimal); None without a complete one."""
    # RuntimeError: a user without a home folder.
    with suppress(OSError, RuntimeError):
        png = _path(key).read_bytes()
        if png.endswith(_PNG_END):
            return png
    return None


def store_picture(key: str, png: bytes) -> None:
    """Store a PNG under a key, whole or not at all; the oldest half makes room."""
    with suppress(OSError, RuntimeError):
        path = _path(key)
        partial = path.with_suffix(f".{os.getpid()}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.write_bytes(png)
        partial.replace(path)
        files = list(path.parent.iterdir())
        if len(files) > _MAX_FILES:
            for old in sorted(files, key=lambda file: file.stat().st_mtime)[: _MAX_FILES // 2]:
                old.unlink(missing_ok=True)


@cache
def drawing_version(module: str) -> str:
    """Return a digest of what draws: matplotlib's version, a module of plots and its imports."""
    return hashlib.sha256(
        f"{version('matplotlib')} {code_fingerprint(module)}".encode()
    ).hexdigest()


def _path(key: str) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # As the XDG Base Directory Specification says of relative paths.
    root = root if root.is_absolute() else Path.home() / ".cache"
    return root / "cv-factory" / "pictures" / f"{key}.png"
