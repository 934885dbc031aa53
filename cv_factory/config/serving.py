"""The schema of the service's configuration: limits, access, batching, answers, logs.

A bundle carries it as ``serving.json``. It never holds a secret: keys come from the environment.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cv_factory.config.plugins import load_plugin
from cv_factory.config.section import Section

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class BatchingConfig(Section):
    """How requests share runs of the graph."""

    max_batch: int = Field(8, ge=1, le=256, description="images in one run of the graph")
    queue_size: int = Field(
        64, ge=1, le=65_536, description="images that wait; beyond it requests are answered 503"
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="of ONNX Runtime; as many as CPUs if not given"
    )
    runs: int | None = Field(
        None,
        ge=1,
        le=256,
        description="of the graph at a time, among which the threads are shared out; as many as "
        "threads if not given, which answers most requests; 1 answers a lone request soonest",
    )


class LimitsConfig(Section):
    """What one request may ask for, and how long it may take."""

    max_body_bytes: int = Field(10 * 2**20, ge=1024, le=2**31)
    max_requests: int = Field(
        256, ge=1, le=65_536, description="at a time; beyond it they are answered 503"
    )
    max_images: int = Field(32, ge=1, le=4096, description="in one request")
    max_pixels: int = Field(
        50_000_000, ge=1, description="of one image, as stored; checked before it is decoded"
    )
    max_aspect_ratio: float = Field(50.0, ge=1.0)
    body_seconds: float = Field(10.0, gt=0.0, le=3600.0, description="to send the body in")
    answer_seconds: float = Field(10.0, gt=0.0, le=3600.0, description="to be answered in")


class RateConfig(Section):
    """How many images may be asked for a second, where a key has no limit of its own."""

    per_key: float | None = Field(None, gt=0.0, description="images/s; unlimited if not given")
    per_address: float | None = Field(None, gt=0.0, description="images/s; unlimited if not given")
    burst_seconds: float = Field(
        2.0, gt=0.0, le=3600.0, description="how much of it may be asked for at once"
    )


class JWTConfig(Section):
    """Which JSON Web Tokens are accepted beside API keys."""

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
    """Who may ask for what. API keys themselves come from the environment."""

    allow_open: bool = Field(
        False, description="serve without keys on an address that other machines reach"
    )
    protect: list[Literal["metrics", "model_info"]] = Field(
        [], description="pages that need the role admin; the others are open"
    )
    jwt: JWTConfig | None = None


class LogConfig(Section):
    """What the service writes down."""

    requests: bool = Field(True, description="one JSON line a request on standard error")
    predictions: str | None = Field(
        None, min_length=1, description="folder of the prediction log; none is kept if not given"
    )
    prediction_files: int | None = Field(
        None,
        ge=2,
        description="of the prediction log that are kept in its folder, more than workers, each of "
        "which writes its own; all if not given",
    )
    max_file_bytes: int = Field(
        64 * 2**20, ge=2**16, le=2**40, description="of any log; beyond it a new file begins"
    )
    output_files: int = Field(
        5, ge=2, le=1000, description="of a deployed service's output that are kept"
    )
    max_waiting: int = Field(
        10_000, ge=1, description="predictions that wait to be written; beyond it they are dropped"
    )


class CacheConfig(Section):
    """Whether answers are remembered; each worker remembers its own."""

    max_entries: int = Field(
        0, ge=0, le=10_000_000, description="images whose answers are kept; 0 for none"
    )


class PostprocessorConfig(Section):
    """What is made of probabilities: a module of ``cv_factory.serving.postprocessors``."""

    name: Name = "ranked"
    settings: dict[str, Any] = Field({}, description="of that postprocessor")

    @model_validator(mode="after")
    def _check_settings(self) -> "PostprocessorConfig":
        module = load_plugin("cv_factory.serving.postprocessors", self.name, "postprocessor")
        module.Settings.model_validate(self.settings)
        return self


class ServingConfig(Section):
    """The configuration of a service, which a bundle holds beside its predictor."""

    workers: int = Field(1, ge=1, le=64, description="processes that answer")
    batching: BatchingConfig = BatchingConfig()
    limits: LimitsConfig = LimitsConfig()
    rate: RateConfig = RateConfig()
    access: AccessConfig = AccessConfig()
    postprocessor: PostprocessorConfig = PostprocessorConfig()
    cache: CacheConfig = CacheConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _check_files(self) -> "ServingConfig":
        kept = self.log.prediction_files
        if kept is not None and kept <= self.workers:
            raise ValueError(
                f"log.prediction_files is {kept} and workers is {self.workers}: each worker writes "
                f"a file of its own; keep {self.workers + 1} or more"
            )
        return self
