"""The ASGI application of a bundle: routes, and what each of them answers. It knows no BentoML."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cv_factory.errors import ImageError
from cv_factory.serving.batcher import QueueFullError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.problems import ProblemError, overloaded
from cv_factory.serving.reading import BARE, FORM, JSON, read_images
from cv_factory.serving.scoring import Pixels, Scorer
from cv_factory.serving.state import read_stage


def create_app(
    bundle: Bundle, *, scorer: Scorer | None = None, state_file: Path | None = None
) -> Starlette:
    """Build the application.

    Args:
        bundle: What is served.
        scorer: Of that bundle, where one exists already.
        state_file: Tells the present stage; see ``cv_factory.serving.state``.

    Raises:
        ArtifactError: The predictor does not answer its golden samples as it should.
    """
    app = _Answers(bundle, scorer or Scorer(bundle), state_file)
    routes = [
        Route("/predict", app.predicts(BARE, FORM), methods=["POST"]),
        Route("/predict/batch", app.predicts(FORM, JSON), methods=["POST"]),
        Route("/invocations", app.predicts(BARE, FORM, JSON), methods=["POST"]),
        Route("/ping", _alive),
        Route("/healthz", _alive),
        Route("/model-info", app.model_info),
    ]
    return Starlette(routes=routes, exception_handlers={ProblemError: _explain})


class _Answers:
    """What the routes answer."""

    def __init__(self, bundle: Bundle, scorer: Scorer, state_file: Path | None) -> None:
        self._bundle = bundle
        self._scorer = scorer
        self._state_file = state_file

    def predicts(self, *accepted: str) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that predicts the images of a request."""

        async def predict(request: Request) -> Response:
            begun = time.perf_counter()
            if not self._scorer.batcher.has_room():
                raise overloaded()
            limits = self._bundle.serving.limits
            contents = await read_images(request, limits, accepted)
            images = await self._decoded(contents)
            try:
                async with asyncio.timeout(limits.answer_seconds):
                    scored = await self._scorer.score(images)
            except (QueueFullError, TimeoutError):
                raise overloaded() from None
            return JSONResponse(
                {
                    "predictions": [
                        {"id": s.id, "label": s.answer.label,
                         "probabilities": s.answer.probabilities}
                        for s in scored
                    ],
                    "model": self._bundle.model_name,
                    "version": self._bundle.version,
                    "milliseconds": round(1000 * (time.perf_counter() - begun), 3),
                }
            )  # fmt: skip

        return predict

    async def _decoded(self, contents: list[bytes]) -> list[Pixels]:
        images = []
        for position, content in enumerate(contents):
            try:
                images.append(await self._scorer.read_aside(content))
            except ImageError as error:
                which = "the image" if len(contents) == 1 else f"image {position}"
                raise ProblemError(422, "image", f"{which} cannot be used: {error}") from None
        return images

    async def model_info(self, _request: Request) -> Response:
        """Answer what is served."""
        bundle, contract = self._bundle, self._bundle.predictor.contract
        information: dict[str, Any] = {
            "model": bundle.model_name,
            "version": bundle.version,
            "stage": read_stage(self._state_file),
            "classes": contract.class_names,
            "input": {
                "height": contract.height, "width": contract.width, "channels": contract.channels
            },
            "architecture": contract.model,
            "predictor": bundle.predictor.fingerprint,
            "fingerprints": {**contract.fingerprints, **bundle.fingerprints},
            "metrics": dict(bundle.metrics),
            "run_id": bundle.run_id,
            "registration_id": bundle.registration_id,
            "git_commit": bundle.git_commit,
            "created": bundle.created,
        }  # fmt: skip
        return JSONResponse(information)


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("\n")


async def _explain(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response()
