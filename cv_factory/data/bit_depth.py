"""Images of more than 8 bits a channel: their stored values, scaled to 8 bits.

Beyond that they are decoded like all others (orientation, colour profile, transparency).
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from cv_factory.errors import ImageError

#: Stored values that become black and white.
ValueRange = tuple[float, float]

SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
DEEP_GRAY_MODES = SIXTEEN_BIT_MODES | {"I", "F"}

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR_CONFIGURATION = 258, 262, 284  # TIFF tags
_MIN_IS_WHITE, _SEPARATE_PLANES = 0, 2
#: Pillow keeps the high byte of 16-bit colours; read in the other byte order, it keeps the low one.
_READ_IN_BOTH_ORDERS = ("RGB;16", "RGBA;16", "RGBX;16")
_OTHER_BYTE_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class StoredValues:
    """Values that are stored in images of more than 8 bits, and the range that they may use.

    Attributes:
        low: The smallest value.
        high: The largest value.
        black: The value that becomes black.
        white: The value that becomes white.
        n_images: Number of images.
    """

    low: float
    high: float
    black: float
    white: float
    n_images: int = 1

    def __or__(self, other: "StoredValues") -> "StoredValues":
        """Return the values of both."""
        return StoredValues(
            min(self.low, other.low),
            max(self.high, other.high),
            min(self.black, other.black),
            max(self.white, other.white),
            self.n_images + other.n_images,
        )

    @property
    def share(self) -> float:
        """Share of the range between black and white that the values span."""
        span = min(self.high, self.white) - max(self.low, self.black)
        return max(0.0, span / (self.white - self.black))


@dataclass(frozen=True)
class Depth:
    """How the values of an image of more than 8 bits are stored.

    Attributes:
        white: The largest value that can be stored; None where the format defines none.
        is_inverted: Whether the smallest value is white.
        color_rawmode: Pillow's name of the layout of 16-bit colours; empty for gray.
    """

    white: float | None
    is_inverted: bool = False
    color_rawmode: str = ""


def parse_depth(image: ImageFile.ImageFile) -> Depth | None:
    """Return how values are stored in an image whose pixels are not loaded; None for 8 bits.

    Raises:
        ImageError: Pillow would take the two bytes of a value for two values.
    """
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    args = image.tile[0].args if image.tile else ()
    if image.mode in DEEP_GRAY_MODES:
        is_inverted = tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE
        if image.mode in SIXTEEN_BIT_MODES:
            bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
            return Depth(2.0**bits - 1, is_inverted)
        if image.mode == "I" and image.format == "PPM":
            return Depth(float(args[-1]) if isinstance(args, tuple) else 65535.0)
        return Depth(None, is_inverted)
    if image.format == "PPM" and isinstance(args, tuple) and args[-1] > 255:
        return Depth(float(args[-1]), color_rawmode=args[0])
    rawmode = args if isinstance(args, str) else next(iter(args or ()), "")
    is_in_planes = tags.get(_PLANAR_CONFIGURATION) == _SEPARATE_PLANES
    if is_in_planes and rawmode in ("R", "C") and max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8:
        raise ImageError("16-bit colours in a plane each: save them pixel by pixel, or compressed")
    is_deep = isinstance(rawmode, str) and rawmode[:-1].endswith(";16")
    # libtiff reads the planes in the machine's own byte order alone.
    color_rawmode = "in planes" if is_in_planes else rawmode
    return Depth(65535.0, color_rawmode=color_rawmode) if is_deep else None


def scale_gray(
    image: Image.Image, depth: Depth, value_range: ValueRange | None
) -> tuple[Image.Image, StoredValues]:
    """Scale gray values to 8 bits; what PNG declares transparent stays so (mode ``LA``).

    Raises:
        ImageError: Values are no numbers.
    """
    values = np.array(image, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ImageError("it holds values that are no numbers (NaN or infinity)")
    transparent = image.info.get("transparency")
    alpha = values != transparent if isinstance(transparent, int) else None
    if image.format == "PPM" and depth.white is not None:  # Pillow has scaled them to 16 bits
        values = np.rint(values * (depth.white / 65535.0))
    black, white = value_range or (0.0, depth.white or 0.0)
    stored = StoredValues(float(values.min()), float(values.max()), black, white)
    pixels = _to_eight_bits(values, black, white)
    scaled = Image.fromarray(255 - pixels if depth.is_inverted else pixels)
    if alpha is not None:
        scaled.putalpha(Image.fromarray(alpha.astype(np.uint8) * 255))
    return scaled, stored


def scale_color(
    image: Image.Image, low_bytes: Image.Image, value_range: ValueRange
) -> tuple[Image.Image, StoredValues]:
    """Scale 16-bit colours, given as their high and their low bytes, to 8 bits.

    Alpha stays, and so does what PNG declares transparent (mode ``RGBA``).
    """
    high, low = (np.asarray(part)[..., :3].astype(np.float32) for part in (image, low_bytes))
    values = 256 * high + low
    stored = StoredValues(float(values.min()), float(values.max()), *value_range)
    transparent = image.info.get("transparency")
    alpha = None if transparent is None else (values != transparent).any(axis=-1)
    scaled = Image.fromarray(_to_eight_bits(values, *value_range))
    if image.mode == "RGBA":
        scaled.putalpha(image.getchannel("A"))
    elif alpha is not None:
        scaled.putalpha(Image.fromarray(alpha.astype(np.uint8) * 255))
    return scaled, stored


def measure_color(image: Image.Image, white: float) -> StoredValues:
    """Return the values of 16-bit colours, to the precision of the 8 bits that Pillow keeps."""
    bands = [band for band in image.getbands() if band not in "AaX"]
    extrema = [image.getchannel(band).getextrema() for band in bands]
    low, high = (float(value) * white / 255 for value in (np.min(extrema), np.max(extrema)))
    return StoredValues(low, high, 0.0, white)


def select_low_bytes(image: ImageFile.ImageFile, depth: Depth) -> None:
    """Let the pixels of a 16-bit colour image, not loaded yet, be its low bytes.

    Raises:
        ImageError: Pillow cannot read them in another byte order.
    """
    if depth.color_rawmode[:-1] not in _READ_IN_BOTH_ORDERS:
        raise ImageError(
            "16-bit colours of this kind cannot be scaled by data.value_range: save them as PNG or "
            "TIFF, RGB or RGBA"
        )
    rawmode = depth.color_rawmode[:-1] + _OTHER_BYTE_ORDER[depth.color_rawmode[-1]]
    image.tile = [
        part._replace(
            args=rawmode if isinstance(part.args, str) else (rawmode, *(part.args or ())[1:])
        )
        for part in image.tile
    ]


def _to_eight_bits(
    values: npt.NDArray[np.float32], black: float, white: float
) -> npt.NDArray[np.uint8]:
    """Scale in place: ``floor(255 * (values - black) / (white - black))``, within 0 to 255."""
    values -= np.float32(black)
    values *= np.float32(255)
    values /= np.float32(white - black)
    return values.clip(0, 255, out=values).astype(np.uint8)
