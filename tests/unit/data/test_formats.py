"""One list of formats: what is read, what is named and why, and what the page says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cv_factory.data import formats
from cv_factory.data.decode import decode, read_header
from cv_factory.data.formats import FORMATS, HEIF
from cv_factory.errors import ImageError
from tests.support.images import encode, scene

PAGE = Path(__file__).parents[3] / "docs" / "your-own-images.md"


def refuse(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_header(content)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0.png\n", "git annex get"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"8BPS\0\1" + bytes(99), "Photoshop"),
        (bytes(128) + b"DICM" + bytes(99), "DICOM"),
        (b"\xff\x0a" + bytes(99), "JPEG XL"),
        (b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41", "a video"),
        (b"PK\3\4" + bytes(99), "unpack"),
        (b"MM\0*" + bytes(99), "a damaged TIFF image, or of a variant"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "AVIF"),
        (b"what else", "not an image, or of a format that is not supported"),
    ],
)
def test_a_file_that_is_not_read_is_named_with_the_cure(content: bytes, reason: str) -> None:
    assert reason in refuse(content)


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1miaf"])
def test_heic_without_its_extra_says_how_to_install_it(
    brands: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = refuse(b"\0\0\0\x18ftyp" + brands)
    assert "HEIC" in reason
    assert "make setup EXTRAS=heif" in reason


def test_heic_is_read_with_its_extra() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    large = Image.fromarray(scene()).resize((320, 240), Image.Resampling.NEAREST)
    content = encode(large, "HEIF", quality=95)
    pixels = decode(content, height=24, width=32, channels=3, max_pixels=10**6).pixels
    assert np.abs(pixels.astype(int) - scene()).mean() < 6


def test_every_format_of_the_list_is_one_of_pillow_and_stands_on_the_page() -> None:
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    page = " ".join(PAGE.read_text().split())
    listing = ", ".join(dict.fromkeys(FORMATS.values()))
    assert f"Read are {listing}; {HEIF} with the extra `heif`" in page


def test_what_is_foreign_is_lower_case_as_it_is_compared() -> None:
    signatures = [s for _, s, _ in (*formats._OTHER_FILES, *formats._READ_SIGNATURES)]
    assert [s.lower() for s in signatures] == signatures
