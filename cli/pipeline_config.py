"""The schemas of the pipelines' configurations: the library's own, and ZenML's section ``zenml``.

A pipeline is a module of ``pipelines`` and is found by its name.
"""

import ast
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, create_model

import pipelines
from cv_factory.config.pipelines import PIPELINE_CONFIGS
from cv_factory.config.section import Section


class StepResources(Section):
    """Resources of one step; the stack chooses the machine."""

    cpu_count: float | None = Field(None, gt=0)
    gpu_count: int | None = Field(None, ge=0)
    memory: str | None = Field(
        None,
        pattern=r"^[0-9]+(KB|KiB|MB|MiB|GB|GiB|TB|TiB)$",
        description="number and unit, such as 8GB or 512MiB",
    )


class ZenMLConfig(Section):
    """ZenML's own settings of the run."""

    enable_cache: bool = True
    run_name: str | None = Field(None, min_length=1)
    tags: list[str] = Field([])
    alert_on_success: bool = Field(
        False, description="announce each success, not only the first one after a failure"
    )
    resources: dict[str, StepResources] = Field(
        {}, description="by step name, such as train: {gpu_count: 1}"
    )


def library_schema(pipeline: str) -> type[Section]:
    """Return the configuration of a pipeline without ZenML's section.

    It is listed in ``PIPELINE_CONFIGS``, or is the attribute ``CONFIG`` of the pipeline's module.
    """
    if pipeline in PIPELINE_CONFIGS:
        return PIPELINE_CONFIGS[pipeline]
    schema: type[Section] = import_module(f"pipelines.{pipeline}").CONFIG
    return schema


def file_schema(pipeline: str) -> type[Section]:
    """Return what a configuration file of a pipeline may hold: its sections, and ``zenml``."""
    base = library_schema(pipeline)
    check = AfterValidator(partial(_check_resources, steps=step_names(pipeline)))
    zenml: Any = (Annotated[ZenMLConfig, check], ZenMLConfig())
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, zenml=zenml)


def split_config(pipeline: str, content: Section) -> tuple[Section, ZenMLConfig]:
    """Divide the content of a file, an instance of ``file_schema``, into the two sides."""
    schema = library_schema(pipeline)
    values = {name: getattr(content, name) for name in schema.model_fields}
    fields_set = content.model_fields_set - {"zenml"}
    return schema.model_construct(fields_set, **values), cast(Any, content).zenml


def step_names(pipeline: str) -> tuple[str, ...]:
    """Return the steps that a pipeline calls, in the order of its source; imports no ZenML."""
    file = Path(pipelines.__path__[0], f"{pipeline}.py")
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    steps = {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("steps.")
        for alias in node.names
    }
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return tuple(dict.fromkeys(name for name in names if name in steps))


def _check_resources(zenml: ZenMLConfig, steps: tuple[str, ...]) -> ZenMLConfig:
    for name in zenml.resources:
        if name not in steps:
            raise ValueError(f"zenml.resources names {name!r}; the steps are {', '.join(steps)}")
    return zenml
