"""The configuration of a rollout: its steps, and the evidence that each needs."""

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from cv_factory.config.section import Problem, Section, refuse

#: Share of the requests that a canary answers; 1.0 is production.
Step = Literal["shadow"] | float


def describe_step(step: Step) -> str:
    """Return a step for people."""
    return "shadow" if step == "shadow" else f"{step:.4g} of the requests"


class ErrorLimits(Section):
    """Requests answered with 5xx or not at all."""

    max_increase: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="a step is passed once the version's rate is shown to exceed that of the one "
        "in production by no more, such as 0.01",
    )


class LatencyLimits(Section):
    """Durations of prediction requests, by the buckets of their histogram."""

    max_ratio: float = Field(
        2.0,
        ge=1.0,
        le=100.0,
        description="how many times as long as in production a request may take; counted by the "
        "next bound of the histogram",
    )
    max_increase: float = Field(
        0.1,
        gt=0.0,
        lt=1.0,
        description="a step is passed once the share of requests that took longer is shown to "
        "exceed that in production by no more",
    )


class AccuracyLimits(Section):
    """Labels of predictions: of disagreements with a shadow, or of both versions' predictions."""

    false_alarm_rate: float = Field(
        0.025,
        gt=0.0,
        lt=1.0,
        description="probability of taking a version that is as accurate for a worse one, or for a "
        "better one, however often one looks",
    )
    max_decrease: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="where labels are required: a version counts as no worse once its accuracy is "
        "shown to be lower by no more",
    )
    is_required: bool = Field(
        False, description="whether labels must show that the version is no worse, at each step"
    )


class RolloutConfig(Section):
    """Steps by which a version gets the requests, and what each needs."""

    steps: list[Step] = Field(
        ["shadow", 0.01, 0.1, 0.5, 1.0],
        min_length=2,
        description="shadow for copies of all requests, then growing shares; 1.0 is production",
    )
    advance: Literal["automatic", "manual"] = Field(
        "automatic",
        description="whether the next step is taken on evidence, or by run.py rollout advance; a "
        "version that is worse is rolled back either way",
    )
    min_requests: int = Field(
        500, ge=1, description="that the version must have answered in a step, copies included"
    )
    max_hours: float = Field(
        24.0, gt=0.0, description="after so many hours without enough evidence a step is held"
    )
    false_alarm_rate: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="probability of rolling a version back that errs no more and is no slower, "
        "however often one looks",
    )
    errors: ErrorLimits = ErrorLimits()
    latency: LatencyLimits | None = LatencyLimits()
    accuracy: AccuracyLimits | None = AccuracyLimits()
    is_watched: bool = Field(
        True, description="whether the deployment starts the watcher, run.py rollout watch"
    )

    @model_validator(mode="after")
    def _check_steps(self) -> "RolloutConfig":
        shares = [0.0 if step == "shadow" else step for step in self.steps]
        if any(b <= a for a, b in pairwise(shares)) or "shadow" in self.steps[1:]:
            message = "must grow, such as [shadow, 0.1, 1.0]; shadow stands first alone"
            refuse([Problem(("steps",), message)])
        if shares[-1] != 1.0 or (self.steps[0] != "shadow" and shares[0] <= 0.0):
            refuse([Problem(("steps",), "must be shares above 0, and end with 1.0")])
        return self
