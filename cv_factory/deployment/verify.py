"""Verification of a running service over HTTP, with the golden samples of its bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from cv_factory.data.encode import encode_png
from cv_factory.errors import CVFactoryError
from cv_factory.inference.predictor import (
    GOLDEN_TOLERANCE,
    UNFAMILIARITY_TOLERANCE,
    ImageScores,
)
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.postprocessors import build_image_postprocessor
from cv_factory.serving.request_log import VERIFICATION_REQUEST_ID


class VerificationError(CVFactoryError):
    """A service gives a different answer than the predictor that it should serve."""


@dataclass(frozen=True)
class VerificationResult:
    """Number of samples compared, and the largest difference of a probability."""

    url: str
    version: str
    n_samples: int
    largest_difference: float


def verify_golden_samples(
    url: str,
    bundle: Bundle,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> VerificationResult:
    """Send the golden samples to a service and compare every answer.

    Labels must be equal, and probabilities and unfamiliarity within their tolerances.

    Args:
        url: Where the service answers, without a path.
        bundle: What it should serve.
        timeout: Seconds for one answer.
        headers: Such as an API key.
        transport: Used instead of the network.

    Raises:
        VerificationError: An answer is missing, wrong, or of another version.
    """
    golden = bundle.predictor.golden
    postprocess = build_image_postprocessor(bundle.serving.postprocessor, bundle.predictor.contract)
    scores = golden.outputs.rows()
    largest = 0.0
    with httpx.Client(
        base_url=url, timeout=timeout, headers=headers, transport=transport, trust_env=False
    ) as client:
        for number, image in enumerate(golden.images):
            answer = _predict(client, image, number)
            if answer.get("version") != bundle.version:
                raise VerificationError(
                    f"{url} answers as version {answer.get('version')}, not as {bundle.version}."
                )
            (prediction,) = answer["predictions"]
            _check_unfamiliarity(url, number, prediction, scores[number])
            expected = postprocess(_with_answered_unfamiliarity(scores[number], prediction))
            difference = _largest_difference(
                prediction["probabilities"], dict(expected.probabilities)
            )
            # Not "difference > TOLERANCE": NaN must fail as well.
            if prediction["label"] != expected.label or not difference <= GOLDEN_TOLERANCE:
                raise VerificationError(
                    f"{url} answers golden sample {number} with {prediction['label']!r}, expected "
                    f"{expected.label!r} (probabilities differ by {difference:.2e}, allowed: "
                    f"{GOLDEN_TOLERANCE:g})."
                )
            largest = max(largest, difference)
    return VerificationResult(url, bundle.version, len(golden.images), largest)


def _check_unfamiliarity(
    url: str, number: int, prediction: Mapping[str, Any], scores: ImageScores
) -> None:
    expected, answer = scores.unfamiliarity, prediction.get("unfamiliarity")
    if expected is None or answer is None:
        is_equal = expected is answer
    else:
        is_equal = _is_close(answer, expected) and (
            prediction.get("unfamiliar") is scores.is_unfamiliar or _is_close(expected, 1.0)
        )
    if not is_equal:
        raise VerificationError(
            f"{url} answers golden sample {number} with an unfamiliarity of {answer}, expected "
            f"{expected} (allowed difference: {UNFAMILIARITY_TOLERANCE:g})."
        )


def _is_close(score: float, expected: float) -> bool:
    tolerance = UNFAMILIARITY_TOLERANCE
    return bool(np.isclose(score, expected, rtol=tolerance, atol=tolerance))


def _with_answered_unfamiliarity(scores: ImageScores, prediction: Mapping[str, Any]) -> ImageScores:
    """Return the scores with what the service decided: at the bound rounding may change it.

    There the abstention depends on the CPU, and one of the golden samples may have set the bound.
    """
    if scores.unfamiliarity is None:
        return scores
    return scores._replace(unfamiliarity=2.0 if prediction.get("unfamiliar") else 0.0)


def _predict(client: httpx.Client, image: npt.NDArray[np.uint8], number: int) -> dict[str, Any]:
    try:
        response = client.post(
            "/predict",
            content=encode_png(image),
            headers={
                "Content-Type": "image/png",
                # A cached answer verifies nothing about what the service computes.
                "Cache-Control": "no-cache",
                "X-Request-ID": VERIFICATION_REQUEST_ID,
            },
        )
        if response.status_code != 200:
            raise VerificationError(
                f"{client.base_url} answers golden sample {number} with status "
                f"{response.status_code}: {response.text[:500]}"
            )
        answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise VerificationError(
            f"{client.base_url} does not answer golden sample {number} "
            f"({type(error).__name__}: {error})."
        ) from None
    return answer


def _largest_difference(actual: dict[str, float], expected: dict[str, float]) -> float:
    """Return the largest difference of a probability; infinite where the labels cannot be right.

    Of the highest few, rounding may exchange the last ones: a label that only one side has is
    compared with the lowest of the other side.
    """
    if len(actual) != len(expected):
        return float("inf")
    if not expected:
        return 0.0
    lowest, expected_lowest = min(actual.values()), min(expected.values())
    common = [abs(actual[name] - expected[name]) for name in actual.keys() & expected.keys()]
    missing = [expected[name] - lowest for name in expected.keys() - actual.keys()]
    extra = [actual[name] - expected_lowest for name in actual.keys() - expected.keys()]
    return max(map(abs, (*common, *missing, *extra)))
