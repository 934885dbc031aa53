"""Image formats that are read, and what other files are when they are taken for images.

The one list of formats: the decoder, its reasons and docs/your-own-images.md follow it.
"""

import importlib.util

from PIL import features

from cv_factory.errors import ImageError, missing_extra

#: Formats that are read, by Pillow's name: what people call them. Others that Pillow knows run
#: programs (EPS), have no signature (TGA), or hold layers instead of a picture (PSD).
FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "GIF": "GIF",
    "BMP": "BMP",
    "DIB": "BMP",
    "WEBP": "WebP",
    "TIFF": "TIFF",
    "PPM": "PNM (PBM, PGM, PPM, PFM)",
    "JPEG2000": "JPEG 2000",
    "AVIF": "AVIF",
    "ICO": "ICO",
}
#: Read with the extra ``heif``.
HEIF = "HEIC"

_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
#: Offset, signature, and what a file is that has it.
_OTHER_FILES = (
    (0, b"version https://git-lfs.github.com/spec/",
     "a Git LFS pointer: run 'git lfs pull' where the images lie"),
    (0, b"/annex/objects/", "a git-annex pointer: run 'git annex get' where the images lie"),
    (0, b"../.git/annex/", "a git-annex pointer: run 'git annex get' where the images lie"),
    (0, b"<!doctype html", "a web page, such as a login or an error"),
    (0, b"<html", "a web page, such as a login or an error"),
    (0, b"<svg", "a drawing (SVG): export it as PNG"),
    (0, b"<?xml", "XML; if it is a drawing (SVG), export it as PNG"),
    (0, b"%pdf", "a PDF: export its pages as PNG"),
    (0, b"%!ps", "PostScript: export it as PNG"),
    (0, b"8bps", "a Photoshop file (PSD): export it as PNG"),
    (0, b"qoif", "a QOI image: convert it to PNG"),
    (0, b"dds ", "a texture (DDS): convert it to PNG"),
    (0, b"\xff\x0a", "a JPEG XL image: convert it to PNG"),
    (0, b"\0\0\0\x0cjxl ", "a JPEG XL image: convert it to PNG"),
    (0, b"v/1\x01", "an OpenEXR image: convert it to TIFF"),
    (0, b"#?radiance", "a Radiance HDR image: convert it to TIFF"),
    (0, b"fujifilmccd-raw", "a camera's raw file: develop it to JPEG or TIFF"),
    (128, b"dicm", "a DICOM file: convert it to PNG or TIFF"),
    (0, b"simple  =", "a FITS file: convert it to TIFF"),
    (0, b"\x89hdf", "an HDF5 file: write its images as PNG"),
    (0, b"\x93numpy", "a NumPy array: write it as PNG or TIFF"),
    (0, b"pk\x03\x04", "a ZIP archive: unpack it"),
    (0, b"\x1f\x8b", "compressed by gzip: unpack it"),
    (4, b"ftyp", "a video: extract its frames"),
)  # fmt: skip
_READ_SIGNATURES = (
    (0, b"\x89png", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"gif8", "GIF"),
    (0, b"bm", "BMP"),
    (0, b"ii*\0", "TIFF"),
    (0, b"mm\0*", "TIFF"),
    (8, b"webp", "WebP"),
    (4, b"jp  ", "JPEG 2000"),
)
_LONGEST = 160


def select_formats(content: bytes) -> tuple[str, ...]:
    """Return Pillow's names of the formats that the content may have.

    Raises:
        ImageError: It is a HEIC image, and the extra ``heif`` is not installed.
    """
    brands = _parse_brands(content)
    if not brands & _HEIF_BRANDS or brands & _AVIF_BRANDS:
        return tuple(FORMATS)
    if importlib.util.find_spec("pillow_heif") is None:
        raise ImageError(
            f"a HEIC image, as phones take them. {missing_extra('heif')}, or convert it to JPEG"
        )
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def describe_foreign_file(content: bytes) -> str:
    """Return the reason why a file that Pillow does not identify is not read, and the cure."""
    head = content[:_LONGEST].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if _parse_brands(content) & _AVIF_BRANDS:
        if not features.check("avif"):
            return "an AVIF image, which this build of Pillow cannot read: pip install -U pillow"
        return "a damaged AVIF image, or of a variant that is not supported"
    for offset, signature, kind in _READ_SIGNATURES:
        if head.startswith(signature, offset):
            return f"a damaged {kind} image, or of a variant that is not supported"
    for offset, signature, description in _OTHER_FILES:
        if head.startswith(signature, offset):
            return f"not an image that can be read, but {description}"
    return "not an image, or of a format that is not supported"


def _parse_brands(content: bytes) -> frozenset[bytes]:
    """Return the brands of an ISO media file (HEIC, AVIF, video); none for other files."""
    if content[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(content[:4]), _LONGEST)
    # The four bytes after the first brand are its version.
    starts = (8, *range(16, end, 4))
    return frozenset(content[start : start + 4] for start in starts)
