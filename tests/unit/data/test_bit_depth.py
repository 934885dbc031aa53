"""Images of more than 8 bits: the right picture, by the rules of 8 bits, at any depth."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.config.serving import ServingConfig
from cv_factory.config.validation import ValidationConfig
from cv_factory.data.bit_depth import StoredValues
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.decode import DecodedImage, decode, read_header
from cv_factory.data.ingest import ingest
from cv_factory.data.validation.great_expectations import validate_dataset
from cv_factory.data.validation.rules import build_value_rules
from cv_factory.errors import ImageError
from cv_factory.inference.predictor import Contract
from cv_factory.serving.inference_engine import decode_input
from tests.support.images import encode

#: 12 bits, from black to white.
RAMP = np.linspace(0, 4095, 24 * 32).reshape(24, 32).astype(np.uint16)
TWELVE_BITS = (0.0, 4095.0)


def decoded(
    content: bytes, channels: int = 1, value_range: tuple[float, float] | None = None
) -> DecodedImage:
    return decode(
        content, height=24, width=32, channels=channels, max_pixels=10**6, value_range=value_range
    )


def tiff(values: np.ndarray, photometric: int, bits: int = 0, sample_format: int = 1) -> bytes:
    """The smallest TIFF: one uncompressed strip; 12 bits are packed as the format demands."""
    data = values.tobytes()
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = (pairs[:, 0] << 12) | pairs[:, 1]
        data = b"".join(int(pair).to_bytes(3) for pair in packed)
    height, width = values.shape
    tags = [(254, 0), (256, width), (257, height), (258, bits or 8 * values.itemsize), (259, 1),
            (262, photometric), (273, 0), (277, 1), (278, height), (279, len(data)),
            (339, sample_format)]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (254, 256, 257, 273, 278, 279) else 3, 1,
                    start if tag == 273 else value)
        for tag, value in tags
    )  # fmt: skip
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def png16(values: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits a channel: uint16 ``(H, W, C)`` with 1 to 4 channels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, channels = values.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    key = struct.pack(f">{len(transparent)}H", *transparent)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
        + (chunk(b"tRNS", key) if key else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content",
    [
        tiff(RAMP * 16, 1),
        tiff(65535 - RAMP * 16, 0),
        tiff(RAMP, 1, bits=12),
        png16(RAMP[..., None] * 16),
        b"P5\n32 24\n4095\n" + RAMP.astype(">u2").tobytes(),
        b"P5\n32 24\n65535\n" + (RAMP * 16).astype(">u2").tobytes(),
        b"P2\n32 24\n4095\n" + " ".join(map(str, RAMP.ravel())).encode(),
    ],
    ids=["tiff", "white is zero", "tiff12", "png", "pgm12", "pgm16", "plain pgm"],
)
def test_each_format_scales_by_the_range_that_it_defines(content: bytes) -> None:
    assert read_header(content).is_gray
    np.testing.assert_allclose(decoded(content).pixels[..., 0], RAMP / 4095 * 255, atol=1.1)


@pytest.mark.parametrize("photometric", [0, 1])
def test_polarity_is_that_of_8_bits(photometric: int) -> None:
    deep = decoded(tiff(RAMP * 16, photometric)).pixels.astype(int)
    flat = decoded(tiff((RAMP // 16).astype(np.uint8), photometric)).pixels
    np.testing.assert_allclose(deep, flat, atol=1)


def test_the_transparent_value_of_a_png_is_laid_over_white() -> None:
    values = RAMP[..., None].copy()
    values[:12] = 700
    pixels = decoded(png16(values, transparent=(700,))).pixels
    assert (pixels[:12] == 255).all()
    assert (pixels[12:] < 20).all()


@pytest.mark.parametrize("value_range", [None, TWELVE_BITS])
def test_the_transparent_color_of_a_png_is_laid_over_white(
    value_range: tuple[float, float] | None,
) -> None:
    values = np.full((24, 32, 3), (0x201, 0x302, 0x403), np.uint16)
    values[12:, :, 2] += 1  # the same color to 8 bits
    pixels = decoded(png16(values, transparent=(0x201, 0x302, 0x403)), 3, value_range).pixels
    assert (pixels[:12] == 255).all()
    assert (pixels[12:] < 70).all()


def test_alpha_is_no_stored_value() -> None:
    values = np.stack([RAMP, np.full_like(RAMP, 65535)], axis=-1)
    measured = decoded(png16(values)).values
    assert measured is not None
    assert measured.high < 4096


def test_colors_of_16_bits_in_planes_are_refused() -> None:
    # As tifffile writes them; Pillow would take the bytes of the first row for two rows.
    content = tiff(np.concatenate([RAMP * 16] * 3), 2)
    for old, new in (
        ((257, 4, 1, 72), (257, 4, 1, 24)),
        ((277, 3, 1, 1), (277, 3, 1, 3)),
        ((278, 4, 1, 72), (284, 3, 1, 2)),  # the planes
    ):
        assert struct.pack("<HHII", *old) in content
        content = content.replace(struct.pack("<HHII", *old), struct.pack("<HHII", *new))
    with pytest.raises(ImageError, match="in a plane each: save them"):
        decoded(content, 3)


def linear_gray_profile() -> bytes:
    """The smallest ICC profile of gray whose values are proportional to light."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    offset = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", offset, len(white), b"kTRC",
                       offset + len(white), len(curve))  # fmt: skip
    size = offset + len(white) + len(curve)
    head = struct.pack(">II4s4s4s4s", size, 0, b"\2\x10\0\0", b"mntr", b"GRAY", b"XYZ ")
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    header = head.ljust(36, b"\0") + b"acsp" + bytes(28) + illuminant
    return header.ljust(128, b"\0") + tags + white + curve


@pytest.mark.parametrize("transparent", [None, 0])
def test_a_gray_profile_is_applied_as_at_8_bits(transparent: int | None) -> None:
    half = np.full((24, 32), 128, np.uint8)
    half[0] = 0
    options: dict[str, Any] = {"icc_profile": linear_gray_profile()}
    if transparent is not None:
        options["transparency"] = transparent
    flat = decoded(encode(Image.fromarray(half), **options)).pixels
    deep = decoded(encode(Image.fromarray(half.astype(np.uint16) * 257), **options)).pixels
    np.testing.assert_array_equal(deep, flat)
    assert 180 < flat[1, 0, 0] < 195, "half of the light is 188 in sRGB"
    assert flat[0, 0, 0] == (0 if transparent is None else 255)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_declared_range_keeps_the_levels(channels: int) -> None:
    values = np.stack([RAMP] * channels, axis=-1)
    if channels == 4:
        values[..., 3] = 65535
    without = decoded(png16(values))
    assert len(np.unique(without.pixels)) <= 16
    assert without.values is not None
    assert without.values.share < 0.07
    image = decoded(png16(values), value_range=TWELVE_BITS)
    np.testing.assert_allclose(image.pixels[..., 0], RAMP / 4095 * 255, atol=1.1)
    assert image.values == StoredValues(0, 4095, 0, 4095)


def test_16_bit_colors_without_another_byte_order_are_measured_and_refuse_a_range() -> None:
    values = np.stack([RAMP // 16] * 3, axis=-1)
    content = b"P6\n32 24\n4095\n" + values.astype(">u2").tobytes()
    stored = decoded(content, 3).values
    assert stored is not None
    assert stored.white == 4095
    assert stored.share == pytest.approx(1 / 16, abs=0.01)
    with pytest.raises(ImageError, match="PNG or TIFF"):
        decoded(content, 3, (0.0, 255.0))


def test_a_declared_range_of_16_bit_color_holds_in_tiff() -> None:
    # Pillow writes none, so the bytes are those of gray with other tags.
    content = tiff(np.repeat(RAMP, 3, axis=1).reshape(24, 96), 2)
    for tag, kind, before, after in ((256, 4, 96, 32), (277, 3, 1, 3)):
        content = content.replace(
            struct.pack("<HHII", tag, kind, 1, before), struct.pack("<HHII", tag, kind, 1, after)
        )
    pixels = decoded(content, 3, TWELVE_BITS).pixels
    np.testing.assert_allclose(pixels[..., 1], RAMP / 4095 * 255, atol=1.1)


def test_numbers_without_a_white_need_a_declared_range() -> None:
    floats = tiff((RAMP / 4095).astype(np.float32), 1, sample_format=3)
    integers = tiff(RAMP.astype(np.uint32), 1)
    for content, value_range in ((floats, (0.0, 1.0)), (integers, TWELVE_BITS)):
        with pytest.raises(ImageError, match=r"set data\.value_range"):
            decoded(content)
        pixels = decoded(content, value_range=value_range).pixels
        np.testing.assert_allclose(pixels[..., 0], RAMP / 4095 * 255, atol=1.1)
    broken = np.where(RAMP < 9, np.nan, RAMP).astype(np.float32)
    with pytest.raises(ImageError, match="NaN"):
        decoded(tiff(broken, 1, sample_format=3), value_range=TWELVE_BITS)


def test_a_preview_is_not_taken_for_the_picture() -> None:
    full, reduced = (struct.pack("<HHII", 254, 4, 1, value) for value in (0, 1))
    with pytest.raises(ImageError, match="raw file"):
        decoded(tiff(RAMP, 1).replace(full, reduced))


def read_twelve_bits(folder: Path, value_range: list[float] | None = None) -> ImageDataset:
    for label, value in (("dark", 300), ("light", 800)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            values = np.full((8, 8, 1), value + number, np.uint16)
            values[0, 0] = 4095
            (folder / label / f"{number}.png").write_bytes(png16(values))
    return ingest(DataConfig(source="folder", path=str(folder), value_range=value_range))


def test_a_dataset_that_uses_a_part_of_the_range_is_warned_of(tmp_path: Path) -> None:
    dataset = read_twelve_bits(tmp_path)
    assert dataset.images.shape == (8, 8, 8, 1)
    report = validate_dataset(
        dataset.manifest, class_names=dataset.class_names, split={}, config=ValidationConfig(),
        stored_values=dataset.stored_values,
    )  # fmt: skip
    (warning,) = (result for result in report.failures if result.name == "values_fill_range")
    assert warning.verdict == "warning"
    assert warning.remedy == "To keep them: --set 'data.value_range=[0,4095]'."
    assert any(remark.endswith(warning.remedy) for remark in report.remarks)
    assert warning.observed == "300 to 4,095 in 8 images of more than 8 bits"


def test_a_declared_range_is_compared_with_the_values(tmp_path: Path) -> None:
    fitting = read_twelve_bits(tmp_path, value_range=[0, 4095])
    assert len(np.unique(fitting.images[:, 4, 4])) > 2
    for dataset, is_inside in (
        (fitting, "yes"),
        (read_twelve_bits(tmp_path, value_range=[0, 1000]), "no"),
    ):
        assert dataset.stored_values is not None
        table, _ = build_value_rules(dataset.stored_values)
        assert table["share"].item() > 0.6
        assert table["is_inside"].item() == is_inside


def test_the_declared_range_goes_with_the_dataset_and_the_contract(tmp_path: Path) -> None:
    plain = read_twelve_bits(tmp_path / "images")
    ranged = read_twelve_bits(tmp_path / "images", value_range=[0, 4095])
    for number, dataset in enumerate((plain, ranged)):
        stored = tmp_path / str(number)
        stored.mkdir()
        dataset.save(stored)
        loaded = ImageDataset.load(stored)
        assert loaded.value_range == dataset.value_range
        assert loaded.stored_values == dataset.stored_values
        assert loaded.content_hash == dataset.content_hash
        contract = Contract(8, 8, 1, ("a", "b"), 2, {}, {}, value_range=dataset.value_range)
        assert Contract.from_dict(contract.to_dict()) == contract
        assert ("value_range" in contract.to_dict()) == (dataset.value_range is not None)


def test_a_service_reads_by_the_range_of_the_contract() -> None:
    contract = Contract(24, 32, 1, ("a", "b"), 2, {}, {}, value_range=TWELVE_BITS)
    image = decode_input(png16(RAMP[..., None]), contract, ServingConfig().limits)
    np.testing.assert_allclose(image.pixels[..., 0], RAMP / 4095 * 255, atol=1.1)


@pytest.mark.parametrize("value_range", [[4095, 0], [1, 1], [0], [0, float("inf")]])
def test_a_range_is_two_rising_numbers(value_range: list[float]) -> None:
    with pytest.raises(ValueError, match="value_range"):
        DataConfig(value_range=value_range)
