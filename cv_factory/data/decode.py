"""The one image decoder, shared by ingestion and serving: encoded bytes in, uint8 pixels out.

Needs Pillow and NumPy only. Whatever cannot become the right picture is refused with its reason.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import (  # noqa: F401  (plugins register themselves)
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageCms,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from cv_factory.errors import ImageError

#: What Pillow's decoders raise on damaged input.
_DECODER_ERRORS = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    MemoryError,
    RuntimeError,
    AttributeError,
    ArithmeticError,
    ImageCms.PyCMSError,
    struct.error,
    zlib.error,
)
#: Formats that are read. Others that Pillow knows run programs (EPS) or have no signature.
_FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "DIB",
    "WEBP",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "ICO",
)
_MAX_PROFILE_BYTES = 4 * 2**20
_PROFILE_SPACES = {"RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
_GRAY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N"})
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_UNSCALED_MODES = frozenset({"I", "F"})


@dataclass(frozen=True)
class ImageHeader:
    """Header of an encoded image: size in pixels (as stored) and Pillow's mode."""

    width: int
    height: int
    mode: str

    @property
    def is_gray(self) -> bool:
        """Whether the image holds one channel of intensity (alpha aside)."""
        return self.mode in _GRAY_MODES


@dataclass(frozen=True)
class DecodedImage:
    """Pixels uint8 ``(height, width, channels)`` at the requested size, and the original header."""

    pixels: npt.NDArray[np.uint8]
    header: ImageHeader


def read_header(content: bytes) -> ImageHeader:
    """Read size and mode without decoding the pixels.

    Raises:
        ImageError: The bytes are no image that Pillow knows.
    """
    with _open_image(content) as image:
        return _parse_header(image)


def decode(
    content: bytes,
    *,
    height: int,
    width: int,
    channels: int,
    max_pixels: int,
    max_aspect_ratio: float = 50.0,
) -> DecodedImage:
    """Decode one image to a fixed size and number of channels.

    EXIF orientation is applied, colours are converted from an embedded ICC profile to sRGB,
    transparency is laid over white, 16-bit grey is scaled to 8 bits, the first frame of an
    animation is taken. Resizing is bilinear with antialiasing.

    Args:
        content: The encoded image.
        height: Rows of the result.
        width: Columns of the result.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
        max_pixels: Larger images are refused before their pixels are decoded.
        max_aspect_ratio: Images whose longer side is more times the shorter one are refused.

    Raises:
        ImageError: The bytes are empty, no image, truncated, too large, too narrow, or of a mode
            without a defined range; the message is the reason, without the name of the file.
    """
    mode = "L" if channels == 1 else "RGB"
    with _open_image(content) as image:
        header = _parse_header(image)
        _check_header(header, max_pixels, max_aspect_ratio)
        # Lets libjpeg decode at a fraction of the size; a no-op for other formats.
        # The colours of a profile are converted before grey is made of them.
        draft_mode = None if "icc_profile" in image.info else mode
        image.draft(draft_mode, (2 * max(height, width), 2 * max(height, width)))
        ImageOps.exif_transpose(image, in_place=True)
        picture = _flatten(_to_srgb(image), mode)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    return DecodedImage(pixels, header)


@contextmanager
def _open_image(content: bytes) -> Iterator[Image.Image]:
    """Open an image, and turn what Pillow's decoders raise in the block into a reason."""
    if not content:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            yield image
    except _DECODER_ERRORS as error:
        raise ImageError(_reason(error)) from None


def _parse_header(image: Image.Image) -> ImageHeader:
    return ImageHeader(image.width, image.height, image.mode)


def _check_header(header: ImageHeader, max_pixels: int, max_aspect_ratio: float) -> None:
    """Refuse an image for what its header says, before its pixels are decoded."""
    width, height = header.width, header.height
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels are more than the {max_pixels} allowed")
    if max(width, height) > max_aspect_ratio * min(width, height):
        raise ImageError(
            f"{width}x{height} pixels: the longer side is more than {max_aspect_ratio:g} times the "
            "shorter one"
        )
    if header.mode in _UNSCALED_MODES:
        raise ImageError(f"mode {header.mode!r} (32 bits a pixel) has no defined range of values")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert from the embedded colour profile, unless it is broken or does not fit."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) > _MAX_PROFILE_BYTES:
        return image
    if image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    transform = _srgb_transform(profile, image.mode)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None only for conversion in place
    return converted


@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what converts from a profile to sRGB; None where there is nothing to be done."""
    if mode not in _PROFILE_SPACES:
        return None
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if embedded.profile.xcolor_space != _PROFILE_SPACES[mode]:
            return None
        if ImageCms.getProfileDescription(embedded).startswith("sRGB"):
            return None
        target = "RGBA" if mode == "RGBA" else "RGB"
        return ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), mode, target)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Convert to ``L`` or ``RGB`` without clipping deep images or losing transparency."""
    if image.mode in _SIXTEEN_BIT_MODES:
        deep = np.asarray(image, dtype=np.uint16)
        return Image.fromarray((deep // 257).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(background, layer).convert(mode)
    if image.mode == mode:
        return image
    if image.mode in ("1", "L", "RGB"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that is not supported"
    if isinstance(error, MemoryError):
        return "decoding it needs more memory than there is"
    return " ".join(str(error).split()) or type(error).__name__
