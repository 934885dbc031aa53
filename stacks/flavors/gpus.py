"""GPUs of this machine that a step sees. Imports nothing that would initialize one."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from cv_factory.errors import StackError

_log = logging.getLogger(__name__)

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(
    step: str, count: int, environment: Mapping[str, str], devices: Path = Path("/dev")
) -> dict[str, str]:
    """Return the environment variables that make the requested GPUs visible to a step.

    On a machine without GPUs a step runs on the CPU, which is logged.

    Args:
        step: Name of the step.
        count: Requested number of GPUs.
        environment: Variables of this process, which may restrict the visible GPUs already.
        devices: Folder of the operating system's device files.

    Raises:
        StackError: There are some, but fewer than the step asks for.
    """
    installed = [p.name[6:] for p in devices.iterdir() if re.fullmatch(r"nvidia\d+", p.name)]
    if _VARIABLE in environment:
        numbers = [number for number in environment[_VARIABLE].split(",") if number]
    else:
        numbers = sorted(installed, key=int)
    if count and not installed:
        _log.info(f"Step '{step}' asks for {count} GPU; this machine has none: it runs on the CPU.")
        return {}
    if count > len(numbers):
        raise StackError(
            f"Step '{step}' asks for {count} GPUs, {len(numbers)} of this machine are visible. "
            f"Lower zenml.resources.{step}.gpu_count."
        )
    return {_VARIABLE: ",".join(numbers[:count])}
