"""Thumbnails of images that violate an expectation."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.data.validation.report import ExpectationResult

_MAX_THUMBNAILS = 10
#: Of a thumbnail, in pixels.
_MAX_SIDE = 96


def encode_thumbnails(
    results: Sequence[ExpectationResult],
    ids: "pd.Series[Any]",
    images: npt.NDArray[np.uint8],
) -> dict[str, str]:
    """Return PNGs (base64) of the first offending images of each expectation, by id."""
    ids_to_show = {
        id_
        for result in results
        if not result.success
        for id_ in result.offending_ids[:_MAX_THUMBNAILS]
    }
    positions = np.flatnonzero(ids.isin(sorted(ids_to_show)).to_numpy(dtype=bool))
    return {str(ids.iloc[position]): encode_thumbnail(images[position]) for position in positions}


def encode_thumbnail(pixels: npt.NDArray[np.uint8], max_side: int = _MAX_SIDE) -> str:
    """Encode an image uint8 ``(H, W, C)``, at most so many pixels a side, as a PNG in base64."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
