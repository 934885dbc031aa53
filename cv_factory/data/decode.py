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
    ExifTags,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageCms,
    ImageFile,
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

from cv_factory.data.bit_depth import (
    DEEP_GRAY_MODES,
    Depth,
    StoredValues,
    ValueRange,
    measure_color,
    parse_depth,
    scale_color,
    scale_gray,
    select_low_bytes,
)
from cv_factory.data.formats import describe_foreign_file, select_formats
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
_MAX_PROFILE_BYTES = 4 * 2**20
_PROFILE_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
#: Pillow's modes of one channel of intensity, alpha aside.
GRAY_MODES = DEEP_GRAY_MODES | {"1", "L", "LA"}
_SUBFILE_TYPE, _REDUCED_COPY = 254, 1  # TIFF tag and its flag
_SIDEWAYS_ORIENTATIONS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class ImageHeader:
    """Header of an encoded image: its upright size in pixels, and Pillow's mode."""

    width: int
    height: int
    mode: str

    @property
    def is_gray(self) -> bool:
        """Whether the image holds one channel of intensity (alpha aside)."""
        return self.mode in GRAY_MODES


@dataclass(frozen=True)
class DecodedImage:
    """Pixels uint8 ``(height, width, channels)`` at the requested size, and the original header.

    ``values`` are those stored in an image of more than 8 bits a channel.
    """

    pixels: npt.NDArray[np.uint8]
    header: ImageHeader
    values: StoredValues | None = None


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
    value_range: ValueRange | None = None,
) -> DecodedImage:
    """Decode one image to a fixed size and number of channels.

    EXIF orientation is applied, colours are converted from an embedded ICC profile to sRGB,
    transparency is laid over white, the first frame of an animation is taken. More than 8 bits a
    channel are scaled to 8 by the range that the file's format defines, or by ``value_range``.
    Resizing is bilinear with antialiasing.

    Args:
        content: The encoded image.
        height: Rows of the result.
        width: Columns of the result.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
        max_pixels: Larger images are refused before their pixels are decoded.
        max_aspect_ratio: Images whose longer side is more times the shorter one are refused.
        value_range: Stored values that become black and white, in images of more than 8 bits.

    Raises:
        ImageError: The bytes are empty, no image, truncated, too large, too narrow, or hold numbers
            of which neither format nor ``value_range`` says what is black and white; the message is
            the reason, without the name of the file.
    """
    mode = "L" if channels == 1 else "RGB"
    with _open_image(content) as image:
        header = _parse_header(image)
        depth = parse_depth(image)
        _check_header(header, max_pixels, max_aspect_ratio)
        _check_depth(depth, header, value_range)
        # Lets libjpeg decode at a fraction of the size; a no-op for other formats.
        # The colours of a profile are converted before grey is made of them.
        draft_mode = None if "icc_profile" in image.info else mode
        image.draft(draft_mode, (2 * max(height, width), 2 * max(height, width)))
        ImageOps.exif_transpose(image, in_place=True)
        if image.size == (header.height, header.width):
            # The orientation stood behind the pixels of a PNG.
            header = ImageHeader(*image.size, header.mode)
        reduced, values = _to_eight_bits(image, content, depth, value_range)
        picture = _flatten(_to_srgb(reduced), mode)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    return DecodedImage(pixels, header, values)


@contextmanager
def _open_image(content: bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image, and turn what Pillow's decoders raise in the block into a reason."""
    if not content:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=select_formats(content)) as image:
            yield image
    except UnidentifiedImageError:
        raise ImageError(describe_foreign_file(content)) from None
    except _DECODER_ERRORS as error:
        raise ImageError(_reason(error)) from None


def _parse_header(image: Image.Image) -> ImageHeader:
    """Return the header.

    Raises:
        ImageError: The file's first picture is a copy at reduced size.
    """
    if getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0) & _REDUCED_COPY:
        raise ImageError(
            "its first picture is a preview, as in a camera's raw file: develop it to JPEG or TIFF"
        )
    width, height = image.size
    if _is_sideways(image):
        width, height = height, width
    return ImageHeader(width, height, image.mode)


def _is_sideways(image: Image.Image) -> bool:
    """Whether the EXIF orientation exchanges width and height.

    Pillow's size of a TIFF is upright already; of a PNG without EXIF data before its pixels,
    ``getexif`` would decode the pixels to look behind them.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return False
    return image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS_ORIENTATIONS


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


def _check_depth(depth: Depth | None, header: ImageHeader, value_range: ValueRange | None) -> None:
    """Refuse numbers of which nothing says what is black and white."""
    if depth is not None and depth.white is None and value_range is None:
        kind = "floating-point numbers" if header.mode == "F" else "signed or 32-bit integers"
        raise ImageError(
            f"it holds {kind}, for which no value is defined as white: set data.value_range to the "
            "values that become black and white, such as [0, 1]"
        )


def _to_eight_bits(
    image: Image.Image, content: bytes, depth: Depth | None, value_range: ValueRange | None
) -> tuple[Image.Image, StoredValues | None]:
    """Scale an image of more than 8 bits a channel to 8; others are returned as they are."""
    if depth is None:
        return image, None
    if not depth.color_rawmode:
        reduced, values = scale_gray(image, depth, value_range)
    elif value_range is None and "transparency" not in image.info:
        return image, measure_color(image, depth.white or 0.0)  # Pillow has kept 8 bits
    else:
        with _open_image(content) as low_bytes:
            select_low_bytes(low_bytes, depth)
            ImageOps.exif_transpose(low_bytes, in_place=True)
            black_white = value_range or (0.0, depth.white or 0.0)
            reduced, values = scale_color(image, low_bytes, black_white)
    reduced.info["icc_profile"] = image.info.get("icc_profile")
    return reduced, values


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert from the embedded colour profile, unless it is broken or does not fit."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) > _MAX_PROFILE_BYTES:
        return image
    opaque = {"P": "RGB", "PA": "RGB", "RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode)
    transform = _srgb_transform(profile, opaque)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image.convert(opaque), transform)
    assert converted is not None  # None only for conversion in place
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
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
        return ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Convert to ``L`` or ``RGB`` without losing transparency."""
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
    if isinstance(error, MemoryError):
        return "decoding it needs more memory than there is"
    return " ".join(str(error).split()) or type(error).__name__
