"""Which GPUs of this machine a step sees. Imports nothing that would take hold of one."""

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
    """Return the variables that show a step as many GPUs as it asks for.

    A machine without any is no error: the step is told so, and runs on the CPU.

    Args:
        step: Name of the step.
        count: GPUs that it asks for.
        environment: In which fewer than all may be visible already.
        devices: Where the operating system shows them.

    Raises:
        StackError: There are some, but fewer than the step asks for.
    """
    named = environment.get(_VARIABLE)
    there = [p.name[6:] for p in devices.iterdir() if re.fullmatch(r"nvidia\d+", p.name)]
    numbers = named.split(",") if named else [] if named == "" else sorted(there, key=int)
    if count and not there:
        _log.info(f"Step '{step}' asks for {count} GPU; this machine has none: it runs on the CPU.")
        return {}
    if count > len(numbers):
        raise StackError(
            f"Step '{step}' asks for {count} GPUs, {len(numbers)} of this machine are visible. "
            f"Lower zenml.resources.{step}.gpu_count."
        )
    return {_VARIABLE: ",".join(numbers[:count])}
