"""The section ``register``: under which name a model is registered, and what promotion needs."""

from pydantic import Field

from cv_factory.config.section import RegisteredName, Section


class RegisterConfig(Section):
    """Under which name the model is registered, and what promotion needs."""

    model_name: RegisteredName = "cv_factory"
    manual_approval: bool = Field(
        False, description="production needs: run.py approve VERSION --by NAME --reason ..."
    )
