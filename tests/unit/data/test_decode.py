"""The decoder gives the right picture, or a reason."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from cv_factory.data.decode import decode, read_header
from cv_factory.errors import ImageError
from tests.support.images import encode, scene


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
        (encode(Image.fromarray(scene()))[:60], "."),
        (encode(Image.fromarray(scene()), "JPEG")[:200], "."),
        (encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "data.value_range"),
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
    assert (header.width, header.height, header.is_gray) == (32, 24, True)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF"])
def test_each_format_gives_the_same_picture(kind: str) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP", "AVIF") else {}
    pixels = decoded(encode(Image.fromarray(scene()), kind, **options)).astype(int)
    assert np.abs(pixels - scene()).mean() < 5


def test_a_progressive_jpeg_gives_the_picture() -> None:
    content = encode(Image.fromarray(scene()), "JPEG", quality=95, progressive=True)
    assert np.abs(decoded(content).astype(int) - scene()).mean() < 5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_of_each_kind_is_laid_over_white(mode: str) -> None:
    layer = Image.fromarray(
        np.dstack([np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.uint8)])
    )
    if mode == "P":
        image = Image.new("P", (32, 24), 0)
        image.putpalette([0, 0, 0] * 256)
        content = encode(image, transparency=0)
    else:
        content = encode(layer.convert(mode))
    assert (decoded(content) == 255).all()


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_sixteen_bit_tiff_of_either_byte_order_is_scaled(byte_order: str) -> None:
    ramp = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(byte_order)
    mode = "I;16" if byte_order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (32, 24), ramp.tobytes())
    pixels = decoded(encode(image, "TIFF"), channels=1)
    np.testing.assert_allclose(pixels[..., 0], ramp.astype(int) / 257, atol=1)


def adobe_like_profile() -> bytes:
    """A colour profile whose red and blue are swapped with respect to sRGB: it cannot be missed."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = int.from_bytes(profile[128:132], "big")
    tags = {profile[132 + 12 * n : 136 + 12 * n].decode(): 132 + 12 * n for n in range(entries)}
    red, blue = tags["rXYZ"], tags["bXYZ"]
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    description = tags["desc"]
    start = int.from_bytes(profile[description + 4 : description + 8], "big")
    size = int.from_bytes(profile[description + 8 : description + 12], "big")
    changed = bytes(profile[start : start + size]).replace(b"\0s\0R\0G\0B", b"\0o\0d\0d\0!")
    profile[start : start + size] = changed
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colours_follow_the_embedded_profile(kind: str) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    content = encode(Image.fromarray(scene()), kind, icc_profile=adobe_like_profile(), **options)
    swapped = scene()[..., ::-1].astype(int)
    assert np.abs(decoded(content).astype(int) - swapped).mean() < 6
    luma = np.asarray(Image.fromarray(scene()[..., ::-1].copy()).convert("L")).astype(int)
    assert np.abs(decoded(content, channels=1)[..., 0].astype(int) - luma).mean() < 6


@pytest.mark.parametrize("profile", [b"no profile", b"", bytes(200), adobe_like_profile()[:300]])
def test_a_profile_that_is_broken_or_srgb_changes_nothing(profile: bytes) -> None:
    content = encode(Image.fromarray(scene()), icc_profile=profile)
    np.testing.assert_array_equal(decoded(content), scene())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encode(Image.fromarray(scene()), icc_profile=srgb)
    np.testing.assert_array_equal(decoded(content), scene())


def test_a_sliver_is_refused_from_its_header() -> None:
    content = encode(Image.new("L", (5000, 4)))
    with pytest.raises(ImageError, match="5000x4 pixels: the longer side is more than 50 times"):
        decoded(content)
    assert decode(
        content, height=4, width=8, channels=1, max_pixels=10**6, max_aspect_ratio=2000
    ).pixels.shape == (4, 8, 1)


def test_a_wrong_extension_does_not_matter_and_programs_are_not_run() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"
    for content in (postscript, b"%PDF-1.4", b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        with pytest.raises(ImageError, match="not an image"):
            decoded(content)
