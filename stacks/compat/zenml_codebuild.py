"""ZenML 0.98.0 starts CodeBuild without the privileged mode that a Docker daemon needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

_BEFORE = "before-parameter-build.codebuild.StartBuild"
_AFTER = "after-call.codebuild.StartBuild"


@contextmanager
def privileged_builds(client: Any) -> Iterator[list[str]]:
    """Start every build in the block in privileged mode.

    Args:
        client: boto3's client of CodeBuild.

    Yields:
        The ids of the builds started so far: ZenML's errors do not name them.
    """
    build_ids: list[str] = []
    events = client.meta.events
    hooks = {_BEFORE: _request_privileged_mode, _AFTER: partial(_record_build_id, build_ids)}
    for event, hook in hooks.items():
        events.register(event, hook)
    try:
        yield build_ids
    finally:
        for event, hook in hooks.items():
            events.unregister(event, hook)


def _request_privileged_mode(params: dict[str, Any], **_: Any) -> None:
    params["privilegedModeOverride"] = True


def _record_build_id(build_ids: list[str], parsed: dict[str, Any], **_: Any) -> None:
    if "build" in parsed:
        build_ids.append(parsed["build"]["id"])
