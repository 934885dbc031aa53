"""The BentoML service: it starts the application of a bundle and answers BentoML's health hooks.

BentoML imports this module in its supervisor as well as in each worker, so that it imports nothing
heavy and opens nothing until an instance is made.
"""

import gc
from typing import TYPE_CHECKING

import bentoml

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Hand a request to the application of the instance that runs in this process."""
    await bentoml.get_current_service().app(scope, receive, send)


@bentoml.service(
    name="cv_factory",
    # The application has time-outs, logs and metrics of its own.
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(application, path="/")
class PredictorService:
    """Serves the bundle that the environment names; see ``cv_factory.serving.state``."""

    def __init__(self) -> None:
        from cv_factory.serving.app import create_app
        from cv_factory.serving.bundle import Bundle
        from cv_factory.serving.scoring import Scorer
        from cv_factory.serving.state import bundle_directory, state_file

        bundle = Bundle.load(bundle_directory())
        self._scorer = Scorer(bundle)
        self.app = create_app(bundle, scorer=self._scorer, state_file=state_file())
        _tune_collector()

    def __is_ready__(self) -> bool:
        """Whether the golden samples are answered as they should be."""
        self._scorer.prove()
        return True


def _tune_collector() -> None:
    """Leave what is loaded out of garbage collections, and make these rare: they stop requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
