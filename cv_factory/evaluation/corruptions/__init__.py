"""Ways in which images go bad between a camera and a model, one module each, at three severities.

After D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations, 2019. A module holds ``STRENGTHS``, by severity, and ``corrupt(images, strength,
rng)``. Strengths are shares of the image's size or of the range of its values, so that they mean
the same for small and large images.
"""

import numpy as np
from numpy.typing import NDArray

from cv_factory.config.plugins import load_plugin, plugin_names

Images = NDArray[np.uint8]
SEVERITIES = (1, 2, 3)
#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.evaluation.corruptions"


def corruption_names() -> tuple[str, ...]:
    """Return the names of all corruptions, sorted."""
    return plugin_names(PLUGINS)


def corrupt(images: Images, name: str, severity: int, seed: int) -> Images:
    """Return corrupted copies of uint8 ``(N, H, W, C)``; the same seed gives the same pixels.

    Args:
        images: With one or three channels.
        name: One of ``corruption_names()``.
        severity: 1, 2 or 3.
        seed: Of the noise, and of where pieces are moved or covered.
    """
    module = load_plugin(PLUGINS, name, "corruption")
    # The severities of a corruption share their noise and directions: only the strength differs.
    rng = np.random.default_rng([seed, *name.encode()])
    corrupted: Images = module.corrupt(images, module.STRENGTHS[severity - 1], rng)
    return corrupted


def to_pixels(values: NDArray[np.floating]) -> Images:
    """Round and clip to uint8."""
    pixels: Images = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels
