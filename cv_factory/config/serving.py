"""Serving configuration: batching, limits, access, postprocessing, cache, logs.

A bundle stores it as ``serving.json``. It holds no secrets: keys come from the environment.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from cv_factory.config.plugins import load_plugin
from cv_factory.config.problems import describe
from cv_factory.config.section import Problem, Section, refuse

#: Key of pydantic's context: the configuration is stored, and was checked by an earlier release.
IS_STORED = "is_stored"
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
#: Scheme, host and port, as browsers send it in the header ``Origin``.
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/?#@\s]+)$")]


class BatchingConfig(Section):
    """Micro-batching of images into runs of the graph."""

    max_batch: int = Field(
        8, ge=1, le=256, description="maximum number of images in one run of the graph"
    )
    queue_size: int = Field(
        64, ge=1, le=65_536, description="maximum number of waiting images; beyond it, 503"
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="threads of ONNX Runtime; one a CPU if not given"
    )
    runs: int | None = Field(
        None,
        ge=1,
        le=256,
        description="concurrent runs of the graph, which share the threads; one a thread if not "
        "given, for the highest throughput; 1 for the lowest latency of a lone request",
    )


class LimitsConfig(Section):
    """Limits of one request and of concurrent requests."""

    max_body_bytes: int = Field(10 * 2**20, ge=1024, le=2**31)
    max_requests: int = Field(
        256, ge=1, le=65_536, description="maximum number of concurrent requests; beyond it, 503"
    )
    max_images: int = Field(
        32, ge=1, le=4096, description="maximum number of images in one request"
    )
    max_labels: int = Field(
        1000, ge=1, le=100_000, description="maximum number of labels in one request of feedback"
    )
    max_pixels: int = Field(
        50_000_000,
        ge=1,
        description="maximum pixels of an encoded image, checked before it is decoded",
    )
    max_aspect_ratio: float = Field(50.0, ge=1.0)
    body_seconds: float = Field(10.0, gt=0.0, le=3600.0, description="timeout of reading the body")
    answer_seconds: float = Field(10.0, gt=0.0, le=3600.0, description="timeout of the prediction")


class WebSocketConfig(Section):
    """Limits of the WebSocket route, beside those of ``LimitsConfig`` for each of its images."""

    window: int = Field(
        8, ge=1, le=4096, description="images of a connection that are predicted at a time"
    )
    max_connections: int = Field(
        256,
        ge=1,
        le=65_536,
        description="maximum number of open connections of a worker",
    )
    idle_seconds: float = Field(
        300.0, gt=0.0, le=86_400.0, description="a connection without images this long is closed"
    )


class RateConfig(Section):
    """Rate limits in images a second, for keys without a limit of their own, and in labels."""

    per_key: float | None = Field(None, gt=0.0, description="images/s; unlimited if not given")
    per_address: float | None = Field(None, gt=0.0, description="images/s; unlimited if not given")
    labels_per_key: float | None = Field(
        None, gt=0.0, description="labels/s of feedback; unlimited if not given"
    )
    burst_seconds: float = Field(
        2.0, gt=0.0, le=3600.0, description="burst, in seconds of the rate"
    )


class JWTConfig(Section):
    """JSON Web Tokens that are accepted besides API keys."""

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks: str = Field(
        min_length=1, description="https:// URL, or path, of the issuer's public keys (a JWK set)"
    )
    algorithms: list[Literal["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"]] = Field(
        ["RS256"], min_length=1
    )
    roles_claim: str = Field("roles", min_length=1)
    leeway_seconds: float = Field(10.0, ge=0.0, le=300.0)


class AccessConfig(Section):
    """Access control. API keys come from the environment."""

    allow_open: bool = Field(
        False, description="allow no access control on an address that other machines can reach"
    )
    protect: list[Literal["metrics", "model_info"]] = Field(
        [], description="pages that require the role admin; others are open"
    )
    origins: list[Origin] = Field(
        [],
        description="origins, such as https://app.example, whose web pages may call the service "
        '(CORS); "*" for all; none if empty',
    )
    jwt: JWTConfig | None = None


class ImageLogConfig(Section):
    """Images that are kept of a sample of the predictions, for labels and retraining."""

    folder: str = Field(min_length=1, description="folder of the images, for their owner alone")
    share: float = Field(
        gt=0.0, le=1.0, description="share of the distinct images, chosen by their HMAC"
    )
    days: float = Field(30.0, gt=0.0, description="days after which an image is removed")


class LogConfig(Section):
    """Request, prediction and output logs."""

    requests: bool = Field(True, description="one JSON line a request on standard error")
    predictions: str | None = Field(
        None, min_length=1, description="folder of the prediction log; none if not given"
    )
    prediction_files: int | None = Field(
        None,
        ge=2,
        description="number of files kept in the prediction log's folder; more than workers, each "
        "of which writes its own; all if not given",
    )
    max_file_bytes: int = Field(
        64 * 2**20,
        ge=2**16,
        le=2**40,
        description="size of a log file beyond which a new one starts",
    )
    output_files: int = Field(
        5, ge=2, le=1000, description="number of files kept of a deployed service's output"
    )
    max_waiting: int = Field(
        10_000,
        ge=1,
        description="maximum number of queued predictions; beyond it, they are dropped",
    )
    sampling: float = Field(
        1.0, gt=0.0, le=1.0, description="share of the predictions that are logged"
    )
    images: ImageLogConfig | None = Field(
        None, description="images of logged predictions to keep; none if not given"
    )


class CacheConfig(Section):
    """LRU cache of predictions in each worker."""

    max_entries: int = Field(
        0, ge=0, le=10_000_000, description="maximum number of cached images; 0 turns the cache off"
    )


class PostprocessorConfig(Section):
    """Postprocessor of probabilities: a module of ``cv_factory.serving.postprocessors``."""

    name: Name = "ranked"
    settings: dict[str, Any] = Field({}, description="settings of that postprocessor")
    abstain_when_unfamiliar: bool = Field(
        False, description="the label is null for an image that is unlike the training images"
    )

    @model_validator(mode="after")
    def _check_settings(self) -> "PostprocessorConfig":
        module = load_plugin("cv_factory.serving.postprocessors", self.name, "postprocessor")
        try:
            module.Settings.model_validate(self.settings)
        except ValidationError as error:
            refuse(Problem(("settings", *d["loc"]), describe(d)) for d in error.errors())
        return self


class ServingConfig(Section):
    """Serving configuration that a bundle holds beside its predictor."""

    workers: int = Field(1, ge=1, le=64, description="number of worker processes")
    batching: BatchingConfig = BatchingConfig()
    limits: LimitsConfig = LimitsConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    rate: RateConfig = RateConfig()
    access: AccessConfig = AccessConfig()
    postprocessor: PostprocessorConfig = PostprocessorConfig()
    cache: CacheConfig = CacheConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _check_combinations(self, info: ValidationInfo) -> "ServingConfig":
        if not (info.context or {}).get(IS_STORED):
            refuse(self._contradictions())
        return self

    def lower_limits(self) -> "ServingConfig":
        """Return the configuration of an earlier release with the limits that it can meet."""
        n_images = min(self.limits.max_images, self.batching.queue_size)
        runs, threads = self.batching.runs, self.batching.threads
        if runs is not None and threads is not None:
            runs = min(runs, threads)
        return self.model_copy(
            update={
                "limits": self.limits.model_copy(update={"max_images": n_images}),
                "batching": self.batching.model_copy(update={"runs": runs}),
            }
        )

    def _contradictions(self) -> Iterator[Problem]:
        """Yield the settings that another one makes useless or impossible to meet."""
        batching, limits, log = self.batching, self.limits, self.log
        if limits.max_images > batching.queue_size:
            yield Problem(
                ("limits", "max_images"),
                f"is {limits.max_images}, but batching.queue_size is {batching.queue_size}: a "
                "request with more images than that could never be answered; raise the one or "
                "lower the other",
            )
        if batching.threads is not None and (batching.runs or 0) > batching.threads:
            yield Problem(
                ("batching", "runs"),
                f"is {batching.runs}, but batching.threads, which the runs share, is "
                f"{batching.threads}: set it to {batching.threads} or less",
            )
        if log.images is not None and log.predictions is None:
            yield Problem(
                ("log", "images"),
                "needs log.predictions: images are named by their HMAC in the prediction log",
            )
        if log.prediction_files is not None and log.prediction_files <= self.workers:
            yield Problem(
                ("log", "prediction_files"),
                f"is {log.prediction_files} and workers is {self.workers}: each worker writes a "
                f"file of its own; keep {self.workers + 1} or more",
            )
