"""The section ``register``: under which name a model is registered, and what promotion needs."""

from typing import Literal

from pydantic import Field

from cv_factory.config.card import CardConfig
from cv_factory.config.section import RegisteredName, Section


class RegisterConfig(Section):
    """Under which name the model is registered, and what promotion needs.

    What promotion needs is the model's policy: the first run that changes it logs it, and the log
    decides. Once there are approvers, only a run of one of them changes it.
    """

    model_name: RegisteredName = "cv_factory"
    manual_approval: bool = Field(
        False, description="production needs: run.py approve VERSION --reason ..."
    )
    approvers: list[str] = Field(
        default_factory=list,
        description="users who may approve, promote and override: users of the ZenML server or, "
        "without a server, of the system; empty for anybody",
    )
    separate_approver: bool = Field(
        False, description="the one who trained a version may not approve or override it"
    )
    card: CardConfig = CardConfig()
    deploy_after: Literal["staging"] | None = Field(
        None,
        description="staging: deploy a version that a run has staged, by a deployment run of its "
        "own with configs/deployment.yaml; one that needs an approval waits for it",
    )
