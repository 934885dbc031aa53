"""Images that cannot be predicted, or look unlike all held-out ones: size, light, sharpness."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cv_factory.config.detector_section import PredictionDetectorSection
from cv_factory.monitoring.finding import Finding, Status

if TYPE_CHECKING:
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

KIND: Literal["quality"] = "quality"
#: Quantile of the held-out images; beyond it and its opposite an image is unlike them.
_TAIL = 0.001


class InputQualityConfig(PredictionDetectorSection):
    """Refused images, and images unlike all held-out ones."""

    max_refused: float = Field(
        0.05, gt=0.0, lt=1.0, description="share of images that may be refused"
    )
    max_unlike: float = Field(
        0.05,
        gt=0.0,
        lt=1.0,
        description="share whose width, height, brightness, contrast or sharpness may lie outside "
        "that of 99.8 % of the held-out images",
    )
    evidence: float = Field(100.0, gt=1.0, description="alarm at this")


def detect(reference: "Reference", window: "Window", config: InputQualityConfig) -> list[Finding]:
    """Return one finding; its evidence is the mean over refused images and each statistic."""
    import numpy as np

    counts = _count_unlike(reference, window)
    bounds = dict.fromkeys(counts, config.max_unlike)
    if window.n_refused is not None:
        counts = {"refused": (window.n_refused, len(window) + window.n_refused), **counts}
        bounds["refused"] = config.max_refused
    evidence = {name: _evidence(*counts[name], bounds[name]) for name in counts}
    mean = float(np.mean(list(evidence.values()))) if evidence else None
    details: dict[str, Any] = {
        name: {"share": k / n, "n": n, "evidence": evidence[name]}
        for name, (k, n) in counts.items()
        if n
    }
    n = max((n for _, n in counts.values()), default=0)
    shares = ", ".join(f"{name} {figures['share']:.1%}" for name, figures in details.items())
    is_alarm = mean is not None and mean >= config.evidence
    if is_alarm:
        status: Status = "alarm"
        text = f"Images are refused or unlike the held-out ones: {shares}."
    elif n < config.min_predictions:
        status, text = (
            "not_enough_evidence",
            f"{n:,} measured images of {config.min_predictions:,}.",
        )
    else:
        status, text = "silent", f"Images refused or unlike the held-out ones: {shares}."
    limit = _describe_limit(n, config)
    return [Finding("input_quality", KIND, status, text, n, mean, config.evidence, limit, details)]


def _count_unlike(reference: "Reference", window: "Window") -> dict[str, tuple[int, int]]:
    """Return by statistic how many images are unlike the held-out ones, and how many measured."""
    import numpy as np

    from cv_factory.inference.reference import STATISTICS

    held_out = np.concatenate([reference.test.statistics, reference.validation.statistics])
    counts = {}
    for i, name in enumerate(STATISTICS):
        known, values = held_out[:, i], window.statistics[:, i]
        known, values = known[~np.isnan(known)], values[~np.isnan(values)]
        if len(known) and len(values):
            low, high = np.quantile(known, [_TAIL, 1 - _TAIL])
            counts[name] = (int(((values < low) | (values > high)).sum()), len(values))
    return counts


def _evidence(n_events: int, n: int, bound: float) -> float:
    import math

    from cv_factory.monitoring.share_evidence import log_evidence

    return math.exp(min(log_evidence(n_events, n, bound), 700.0))


def _describe_limit(n: int, config: InputQualityConfig) -> str:
    from cv_factory.monitoring.share_evidence import smallest_detectable_share

    share = smallest_detectable_share(n, config.max_unlike, 6 * config.evidence)
    return (
        f"{n:,} images show that more than {config.max_unlike:.1%} are unlike from a true share of "
        f"about {share:.1%} on."
    )
