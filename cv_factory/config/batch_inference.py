"""The configuration of batch inference: which version scores, and where the results go."""

from typing import ClassVar

from pydantic import Field, model_validator

from cv_factory.config.data import DataConfig
from cv_factory.config.secrets import Location, StorageOptions
from cv_factory.config.section import Problem, RegisteredName, Section, refuse


class BatchModelConfig(Section):
    """Version that scores."""

    name: RegisteredName | None = Field(
        None, description="registered name; the only registered model where not given"
    )
    version: int | None = Field(None, ge=1, description="the version in production where not given")


class OutputConfig(Section):
    """Destination of the predictions."""

    path: Location | None = Field(
        None,
        min_length=1,
        description="folder or URL (s3://…) of this job alone; a folder of the stack's artifact "
        "store, named after the job, where not given",
    )
    storage_options: StorageOptions = Field(
        {}, description="for fsspec file systems, as data.storage_options"
    )
    rows_per_part: int = Field(
        8192, ge=1, le=1_000_000, description="rows of a Parquet part, the unit of resuming"
    )


class BatchInferencePipelineConfig(Section):
    """The configuration of the batch inference pipeline."""

    MODEL_NAME_KEY: ClassVar[str | None] = "model.name"

    data: DataConfig = DataConfig()
    model: BatchModelConfig = BatchModelConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _check_combinations(self) -> "BatchInferencePipelineConfig":
        refuse(
            Problem(("data", name), "is the predictor's to say: leave it out")
            for name in ("height", "width", "channels")
            if getattr(self.data, name) is not None
        )
        if self.data.additional is not None:
            refuse([Problem(("data", "additional"), "is for training: leave it out")])
        if self.output.storage_options and self.output.path is None:
            message = "belongs to output.path, which is not given: the artifact store has its own"
            refuse([Problem(("output", "storage_options"), message)])
        return self
