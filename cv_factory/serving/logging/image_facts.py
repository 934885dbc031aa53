"""What the prediction log says of an image: its HMAC, its size and the statistics of its pixels."""

import errno
import hmac
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.data.image_statistics import pixel_statistics

Pixels = npt.NDArray[np.uint8]
#: Key of the HMACs of one prediction log, beside its files: 32 random bytes, for its owner alone.
KEY_FILE = "image-hmac.key"
_KEY_BYTES = 32


@dataclass(slots=True, eq=False)
class LoggedImage:
    """Image behind a prediction.

    Cached predictions share it; its pixels are dropped once the rest is known.

    Attributes:
        width: Of the encoded image, upright.
        height: Likewise.
        pixels: The predictor's input, uint8 ``(H, W, C)``.
        content: The encoded image, where images may be kept and it was one.
        hmac: HMAC-SHA256 of ``pixels``; empty until it is computed.
        statistics: Brightness, contrast and sharpness; None until they are computed.
    """

    width: int
    height: int
    pixels: Pixels | None
    content: bytes | None = None
    hmac: str = ""
    statistics: tuple[float, float, float] | None = None


def load_key(folder: Path) -> bytes:
    """Return the HMAC key of a prediction log; it is created where there is none.

    Raises:
        OSError: The folder cannot be read or written, or the key is damaged.
    """
    path = folder / KEY_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=folder, prefix=f".{KEY_FILE}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # Of several processes one creates it.
            with suppress(FileExistsError):
                os.link(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    key = path.read_bytes()
    # With an empty one, anybody could test whether an image was predicted.
    if len(key) < _KEY_BYTES:
        message = "the key of the images' HMACs is damaged: restore it, or remove it for a new one"
        raise OSError(errno.EIO, message, str(path))
    return key


class ImageHasher:
    """HMAC-SHA256 of images, with a key that is prepared once.

    Equal pixels have equal HMACs, in whatever protocol and format they arrive; who has no key can
    neither recover an image nor test whether one was predicted.
    """

    def __init__(self, key: bytes) -> None:
        """Prepare the key, of 32 bytes."""
        self.key = key
        self._state = hmac.new(key, digestmod="sha256")

    def digest(self, pixels: Pixels) -> str:
        """Return the HMAC of a predictor's input, in hexadecimal."""
        state = self._state.copy()
        state.update(np.ascontiguousarray(pixels).data)
        return state.hexdigest()


def image_hmac(pixels: Pixels, key: bytes) -> str:
    """Return the HMAC of one image; see ``ImageHasher``."""
    return ImageHasher(key).digest(pixels)


def is_sampled(text: str, key: bytes, probability: float) -> bool:
    """Whether a text is in a sample: as foreseen for equal texts, but not without the key."""
    if probability >= 1.0:
        return True
    digest = hmac.digest(key, text.encode(), "sha256")
    return int.from_bytes(digest[:8]) < probability * 2**64


def compute_statistics(images: Sequence[LoggedImage]) -> None:
    """Set the statistics of images whose pixels are at hand, all at once."""
    pending = {id(i): i for i in images if i.statistics is None and i.pixels is not None}
    if not pending:
        return
    pixels = [i.pixels for i in pending.values() if i.pixels is not None]
    # Along the rows it takes half as long as np.stack.
    stacked = np.concatenate(pixels).reshape(len(pixels), *pixels[0].shape)
    columns = np.array(pixel_statistics(stacked), np.float64).round(6)
    for image, values in zip(pending.values(), columns.T.tolist(), strict=True):
        image.statistics = tuple(values)
