"""What a test asks the emulator to do wrong: refusals, failing builds, wrong answers, dying jobs.

moto lets every caller do everything, and its builds succeed. A test says otherwise in a file.
"""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Controls:
    """What goes wrong.

    Attributes:
        refused_actions: Such as ``sagemaker:CreatePipeline``: answered as IAM would answer a caller
            who lacks the permission.
        over_quota: Such as ``sagemaker:CreateEndpoint``: answered as where a quota is too small.
        misdirected: A variant of an endpoint, and the one that answers in its place.
        stuck_weights: Endpoints that accept new weights and never act on them.
        failing_build_log: Lines of a build that fails; empty for builds that succeed.
        interrupted_jobs: Words in the names of spot jobs whose instance is taken away, once, when
            their first checkpoint is on S3.
        dying_jobs: Words in the names of jobs that are killed for good then.
    """

    refused_actions: tuple[str, ...] = ()
    over_quota: tuple[str, ...] = ()
    misdirected: tuple[str, ...] = ()
    stuck_weights: tuple[str, ...] = ()
    failing_build_log: tuple[str, ...] = ()
    interrupted_jobs: tuple[str, ...] = ()
    dying_jobs: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Controls":
        """Return what the tests have written into ``controls.json``."""
        file = folder / "controls.json"
        if not file.exists():
            return cls()
        return cls(**{key: tuple(value) for key, value in json.loads(file.read_text()).items()})
