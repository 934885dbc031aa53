"""The sections of batch inference: which registered version scores, and where the results go."""

from typing import Annotated

from pydantic import Field

from cv_factory.config_section import Section

RegisteredName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]


class BatchModelConfig(Section):
    """Which version scores."""

    name: RegisteredName | None = Field(
        None, description="registered name; the only registered model where not given"
    )
    version: int | None = Field(None, ge=1, description="the version in production where not given")


class OutputConfig(Section):
    """Where the predictions go."""

    path: str | None = Field(
        None,
        min_length=1,
        description="folder or URL (s3://…) of this job alone; a folder of the stack's artifact "
        "store, named after the job, where not given",
    )
    storage_options: dict[str, str | int | bool] = Field(
        {}, description="for fsspec file systems, as data.storage_options"
    )
    rows_per_part: int = Field(
        8192, ge=1, le=1_000_000, description="rows of a Parquet part, the unit of resuming"
    )
