"""The section ``register.card``: what only people can say of a model, for its model card."""

from pydantic import Field

from cv_factory.config.section import Section


class CardConfig(Section):
    """What only people can say of a model; its card warns of what is empty."""

    owner: str = Field("", description="person or team that answers for the model")
    intended_use: str = Field("", description="for whom and for which decisions it is meant")
    out_of_scope_use: str = Field("", description="for what it must not be used")
    ethical_considerations: str = Field("", description="who may be harmed by wrong answers, how")
    data_statement: str = Field(
        "", description="who took and labelled the images, when, where, under which license"
    )

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The keys that are empty."""
        return tuple(key for key, text in self.model_dump().items() if not text.strip())
