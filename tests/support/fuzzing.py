"""Valid images of every kind, and damaged copies of them, from a seed."""

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support.images import encode, scene


def seeds() -> list[bytes]:
    """Encode one scene in every format and mode that is read."""
    picture = Image.fromarray(scene(48, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    return [
        *(encode(picture, kind) for kind in
          ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "ICO")),
        *(encode(picture.convert(mode)) for mode in ("P", "L", "LA", "RGBA", "1")),
        *(encode(picture, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "jpeg")),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "JPEG", progressive=True, exif=exif),
        encode(picture, "GIF", **frames),
        encode(picture, "WEBP", **frames),
        encode(deep),
    ]  # fmt: skip


def mutated(seed: int, n: int) -> Iterator[bytes]:
    """Yield ``n`` damaged images: bits flipped, bytes changed, cut, spliced, sizes lied."""
    random_ = random.Random(seed)
    originals = seeds()
    for number in range(n):
        content = bytearray(originals[number % len(originals)])
        for _ in range(random_.choice((1, 1, 2, 5))):
            _damage(content, random_, originals)
        yield bytes(content)


def _damage(content: bytearray, random_: random.Random, originals: list[bytes]) -> None:
    if not content:
        return
    kind = random_.randrange(7)
    # Headers are where decoders are confused most easily.
    limit = len(content) if random_.random() < 0.5 else min(len(content), 64)
    at = random_.randrange(limit)
    if kind == 0:
        content[at] ^= 1 << random_.randrange(8)
    elif kind == 1:
        content[at] = random_.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        del content[at : at + random_.randrange(1, 64)]
    elif kind == 4:
        content[at:at] = random_.randbytes(random_.randrange(1, 64))
    elif kind == 5:
        lies = (b"\xff" * 4, bytes(4), b"\0\0\xff\xff", b"\x7f" * 4)
        content[at : at + 4] = random_.choice(lies)
    else:
        other = random_.choice(originals)
        content[at:] = other[random_.randrange(len(other)) :]
