"""The decoder gives the right picture, or a reason."""

import numpy as np
import pytest
from images import encode, scene
from PIL import Image

from cv_factory.data.decode import decode, read_header
from cv_factory.errors import ImageError


def decoded(content: bytes, channels: int = 3) -> np.ndarray:
    return decode(content, height=24, width=32, channels=channels, max_pixels=10**6).pixels


def test_a_png_comes_back_unchanged() -> None:
    np.testing.assert_array_equal(decoded(encode(Image.fromarray(scene()))), scene())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(scene())
    if inverse is not None:
        stored = stored.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decoded(encode(stored, exif=exif)), scene())


def test_transparency_is_laid_over_white() -> None:
    layer = np.dstack([scene(), np.zeros((24, 32), np.uint8)])
    layer[10:, :, 3] = 255
    pixels = decoded(encode(Image.fromarray(layer)))
    assert (pixels[:10] == 255).all()
    np.testing.assert_array_equal(pixels[10:], scene()[10:])


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    pixels = decoded(encode(Image.fromarray(ramp)), channels=1)
    np.testing.assert_allclose(pixels[..., 0], ramp / 257, atol=1)


@pytest.mark.parametrize("mode", ["P", "CMYK", "L", "1", "LA"])
def test_other_modes_become_the_same_picture(mode: str) -> None:
    source = Image.fromarray(scene())
    kind = "TIFF" if mode == "CMYK" else "PNG"
    pixels = decoded(encode(source.convert(mode), kind))
    reference = np.asarray(source.convert(mode).convert("RGB"))
    np.testing.assert_allclose(pixels.astype(int), reference, atol=2)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decoded(content).astype(int), scene(), atol=40)


def test_resizing_keeps_the_content_in_place() -> None:
    large = np.asarray(Image.fromarray(scene()).resize((320, 240), Image.Resampling.NEAREST))
    pixels = decoded(encode(Image.fromarray(large), "JPEG", quality=95)).astype(int)
    assert np.abs(pixels - scene()).mean() < 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (encode(Image.fromarray(scene()))[:60], ""),
        (encode(Image.fromarray(scene()), "JPEG")[:200], ""),
        (encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "32 bits"),
    ],
)
def test_what_is_no_right_picture_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decoded(content)
    assert str(caught.value)


def test_a_bomb_is_refused_from_its_header() -> None:
    content = encode(Image.new("1", (5000, 5000)))
    assert len(content) < 10_000
    with pytest.raises(ImageError, match="5000x5000 pixels are more than the 1000000 allowed"):
        decoded(content)


def test_the_header_is_read_without_the_pixels() -> None:
    header = read_header(encode(Image.fromarray(scene()).convert("L")))
    assert (header.width, header.height, header.is_grey) == (32, 24, True)
