"""Samples on the try-it page: some of the predictor's golden samples, as PNG."""

import base64

import numpy as np

from cv_factory.data.encode import encode_png
from cv_factory.inference.predictor import GoldenSamples

_MAX_SAMPLES = 10


def encode_samples(golden: GoldenSamples) -> list[str]:
    """Return up to ten golden samples as PNG in base64, of as many classes as possible."""
    predicted = golden.probabilities.argmax(axis=1)
    _, firsts = np.unique(predicted, return_index=True)
    others = np.setdiff1d(np.arange(len(predicted)), firsts)
    chosen = [*firsts, *others][:_MAX_SAMPLES]
    return [base64.b64encode(encode_png(golden.images[i])).decode() for i in chosen]
