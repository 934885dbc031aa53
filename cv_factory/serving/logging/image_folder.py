"""Folder of images that a service keeps, where its configuration says so, for a limited time.

A file is named by the HMAC of the image in the prediction log, and holds the bytes as they were
sent, or PNG where pixels were.
"""

import io
import logging
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from PIL import Image

from cv_factory.artifacts.files import write_atomic
from cv_factory.config.serving import ImageLogConfig
from cv_factory.data.encode import encode_png
from cv_factory.data.formats import FORMATS, select_formats
from cv_factory.serving.logging.image_facts import LoggedImage
from cv_factory.serving.logging.json_lines import log_event

#: By Pillow's names; HEIF needs an extra, and MPO is what it calls JPEG with a second picture.
_SUFFIXES = tuple(name.lower() for name in (*FORMATS, "HEIF", "MPO"))
_DAY_S = 86_400.0
#: Seconds between two searches for images that are too old.
_EXPIRY_INTERVAL_S = 3600.0


class ImageFolder:
    """Images of a share of the predictions; the same image is always or never among them."""

    def __init__(self, config: ImageLogConfig) -> None:
        """Use the configured folder, which is created with the first image."""
        self._folder = Path(config.folder)
        self._share = config.share
        self._days = config.days
        self._next_expiry = 0.0

    def keep(self, images: Iterable[LoggedImage]) -> None:
        """Store those of the images that are in the share, and remove what is too old.

        What cannot be stored is logged as an event: no prediction is lost by it.
        """
        try:
            for image in images:
                if int(image.hmac[:16], 16) < self._share * 2**64:
                    self._store(image)
            if time.monotonic() >= self._next_expiry:
                self._next_expiry = time.monotonic() + _EXPIRY_INTERVAL_S
                remove_old_images(self._folder, self._days)
        except OSError as error:
            log_event("image-not-kept", logging.ERROR, detail=str(error))

    def _store(self, image: LoggedImage) -> None:
        if image.pixels is None or find_images(self._folder, image.hmac):
            return
        content = image.content or encode_png(image.pixels)
        with Image.open(io.BytesIO(content), formats=select_formats(content)) as opened:
            suffix = str(opened.format).lower()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._folder / f"{image.hmac}.{suffix}", content, mode=0o600)


def find_images(folder: Path, hmac: str) -> list[Path]:
    """Return the files of an image, without a listing of the folder, which may be large."""
    paths = (folder / f"{hmac}.{suffix}" for suffix in _SUFFIXES)
    return [path for path in paths if path.exists()]


def remove_images(folder: Path, hmacs: Collection[str]) -> int:
    """Remove the files of images, and what a killed write of one left; return their number."""
    # write_atomic writes to .NAME.RANDOM.partial.
    files = [file for file in folder.glob("*") if file.name.lstrip(".")[:64] in hmacs]
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)


def remove_old_images(folder: Path, days: float) -> int:
    """Remove the images that were kept more than ``days`` ago, and return their number."""
    return sum(_remove_if_older(file, time.time() - days * _DAY_S) for file in folder.glob("*"))


def _remove_if_older(file: Path, limit: float) -> bool:
    with suppress(FileNotFoundError):
        if file.stat().st_mtime < limit:
            file.unlink()
            return True
    return False
