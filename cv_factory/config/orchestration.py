"""The section ``zenml``: ZenML's own settings of the run."""

from pydantic import Field

from cv_factory.config.section import Section


class StepResources(Section):
    """What one step asks for; which machine that is, the stack decides."""

    cpu_count: float | None = Field(None, gt=0)
    gpu_count: int | None = Field(None, ge=0)
    memory: str | None = Field(None, pattern=r"^[0-9]+(KB|KiB|MB|MiB|GB|GiB|TB|TiB)$")


class ZenMLConfig(Section):
    """ZenML's own settings of the run."""

    enable_cache: bool = True
    run_name: str | None = Field(None, min_length=1)
    tags: list[str] = Field([])
    resources: dict[str, StepResources] = Field(
        {}, description="by step name, such as train: {gpu_count: 1}"
    )


def check_steps(zenml: ZenMLConfig, steps: tuple[str, ...]) -> None:
    """Refuse settings of a step that the pipeline does not have.

    Raises:
        ValueError: Names the steps that it has.
    """
    for name in zenml.resources:
        if name not in steps:
            raise ValueError(f"zenml.resources names {name!r}; the steps are {', '.join(steps)}")
