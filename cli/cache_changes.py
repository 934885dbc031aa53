"""Why a step is not cached: what in its cache key differs from its earlier runs."""

import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from zenml.client import Client
from zenml.config.step_configurations import Step
from zenml.constants import CODE_HASH_PARAMETER_NAME
from zenml.enums import ExecutionStatus
from zenml.models import StepRunResponse

from cli.options import ROOT

#: Earlier runs of a step that are compared with it; the most similar one is named.
_N_EARLIER_RUNS = 20
_MAX_CHANGES, _MAX_FILES = 4, 3
_MAX_VALUE_LENGTH = 40
_ABSENT = object()
_SUCCESSFUL = (ExecutionStatus.COMPLETED, ExecutionStatus.CACHED)


def explain_cache_miss(step: Step, content_hashes: Mapping[str, str | None]) -> str:
    """Return what changed since the most similar of the step's earlier runs, in one line.

    Args:
        step: The step, compiled; all steps before it are cached.
        content_hashes: Of its inputs, by name.
    """
    client = Client()
    listed = client.list_run_steps(
        project=client.active_project.id,
        name=step.spec.invocation_id,
        sort_by="desc:created",
        size=_N_EARLIER_RUNS,
        hydrate=True,
    ).items
    earlier = [run for run in listed if run.status in _SUCCESSFUL]
    if not earlier:
        return f"it never ran in the store {client.zen_store.url}"
    changes = min((list(_find_changes(step, content_hashes, run)) for run in earlier), key=len)
    if not changes:
        changes = [_describe_changed_files(step, earlier[0])]
    more = len(changes) - _MAX_CHANGES
    return ", ".join(changes[:_MAX_CHANGES]) + (f" and {more} more" if more > 0 else "")


def find_changed_settings(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """Yield ``KEY is VALUE, was VALUE`` of each setting that differs, its key dotted."""
    for key in sorted({*before, *after}):
        old, new = (_plain(side.get(key, _ABSENT)) for side in (before, after))
        name = f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from find_changed_settings(old, new, f"{name}.")
        elif old != new:
            yield f"{name.removeprefix('config.')} is {_shorten(new)}, was {_shorten(old)}"


def _find_changes(
    step: Step, content_hashes: Mapping[str, str | None], earlier: StepRunResponse
) -> Iterator[str]:
    stores = {o.artifact_store_id for outputs in earlier.outputs.values() for o in outputs}
    if Client().active_stack.artifact_store.id not in stores:
        yield "another artifact store"
    before, after = (dict(c.parameters) for c in (earlier.config, step.config))
    if before.pop("source_fingerprint", None) != after.pop("source_fingerprint", None):
        yield "the source's images, labels, classes or decoder changed"
    yield from find_changed_settings(before, after)
    for name, content_hash in content_hashes.items():
        if content_hash not in [i.content_hash for i in earlier.inputs.get(name, ())]:
            yield f"its input {name} changed"
    code = [
        c.caching_parameters.get(CODE_HASH_PARAMETER_NAME) for c in (earlier.config, step.config)
    ]
    if code[0] != code[1]:
        yield "the code of the step itself changed"
    if earlier.config.environment != step.config.environment:
        yield "its environment variables changed"


def _describe_changed_files(step: Step, earlier: StepRunResponse) -> str:
    """Name the library files that differ from the commit of an earlier run, as far as git knows."""
    run = Client().get_pipeline_run(earlier.pipeline_run_id)
    commit = (run.config.parameters or {}).get("lineage", {}).get("git_commit", "")
    files = step.config.cache_policy.file_dependencies or []
    try:
        difference = subprocess.run(
            ["git", "-C", str(ROOT), "diff", "--name-only", commit, "--", *files],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        difference = []
    if not difference:
        return "library code that it reaches changed"
    more = len(difference) - _MAX_FILES
    return (
        f"{', '.join(difference[:_MAX_FILES])}{f' and {more} more files' if more > 0 else ''} "
        f"changed since commit {commit[:12]}"
    )


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _shorten(value: Any) -> str:
    if value is _ABSENT or value is None:
        return "not set"
    text = str(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 1]}…"
