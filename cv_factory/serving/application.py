"""The ASGI application of a bundle: routes, and what each of them answers. It knows no BentoML."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cv_factory.errors import ImageError
from cv_factory.serving.auth.access import AccessControl
from cv_factory.serving.auth.api_keys import ApiKeyStore
from cv_factory.serving.auth.principal import Principal
from cv_factory.serving.batcher import QueueFullError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import InferenceEngine, Pixels, ScoredImage
from cv_factory.serving.logging.prediction_log import PredictionLog
from cv_factory.serving.logging.request_log import AsyncLineWriter, write_to_stderr
from cv_factory.serving.middleware import Front, exchange_of
from cv_factory.serving.openapi import describe
from cv_factory.serving.pages import asset, card_page, page
from cv_factory.serving.problem_details import ProblemError, bare_problem, overloaded
from cv_factory.serving.prometheus_metrics import CONTENT_TYPE, Metrics
from cv_factory.serving.request_parsing import BARE, FORM, JSON, read_images
from cv_factory.serving.response_cache import ResponseCache
from cv_factory.serving.service_environment import read_stage

Endpoint = Callable[[Request], Awaitable[Response]]
_SECONDS_BEFORE_REFUSAL = 0.2
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def create_app(
    bundle: Bundle, *, keys: ApiKeyStore | None = None, state_file: Path | None = None
) -> "Application":
    """Build the application.

    Args:
        bundle: What is served.
        keys: That are asked for; without them, and without ``access.jwt``, anyone is answered.
        state_file: Tells the present stage; see ``cv_factory.serving.service_environment``.

    Raises:
        ArtifactError: The predictor does not answer its golden samples as it should.
        ConfigError: The issuer of tokens cannot be asked for its keys, the folder of the
            prediction log cannot be made, or the postprocessor does not fit the predictor.
    """
    return Application(bundle, keys, state_file)


class Application:
    """An ASGI application; ``close`` it at the end."""

    def __init__(self, bundle: Bundle, keys: ApiKeyStore | None, state_file: Path | None) -> None:
        """See ``create_app``."""
        self._bundle = bundle
        self._asking = 0
        self._refusing = 0
        self._state_file = state_file
        self._metrics = Metrics(bundle.model_name, bundle.version)
        self._guard = AccessControl(bundle.serving, keys)
        self._scorer = InferenceEngine(bundle, on_batch=self._metrics.batch)
        self._cache = ResponseCache(bundle, on_lookup=self._metrics.cache_lookup)
        self._predictions = PredictionLog.open(bundle)
        self._log = AsyncLineWriter(write_to_stderr) if bundle.serving.log.requests else None
        routes = self._routes()
        handlers = {
            ProblemError: _explain,
            HTTPException: _explain_framework,
            Exception: _apologize,
        }
        inner = Starlette(routes=routes, exception_handlers=handlers)
        paths = frozenset(route.path for route in routes)
        self._front = Front(inner, paths, self._metrics, self._log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._front(scope, receive, send)

    @property
    def is_open(self) -> bool:
        """Whether anyone is answered."""
        return self._guard.is_open

    def prove(self) -> None:
        """Answer the golden samples.

        Raises:
            ArtifactError: An answer differs from what it was at export.
        """
        self._scorer.prove()

    def close(self) -> None:
        """Write what waits to be written, and let the threads end."""
        self._scorer.close()
        for log in (self._predictions, self._log):
            if log is not None:
                log.close()

    def _routes(self) -> list[Route]:
        """Return every route."""
        specification = describe(self._bundle, is_open=self._guard.is_open)

        async def openapi(_request: Request) -> Response:
            return JSONResponse(specification)

        return [
            Route("/predict", self._predicts(BARE, FORM), methods=["POST"]),
            Route("/predict/batch", self._predicts(FORM, JSON), methods=["POST"]),
            Route("/invocations", self._predicts(BARE, FORM, JSON), methods=["POST"]),
            Route("/ping", _alive),
            Route("/healthz", _alive),
            Route("/model-info", self._protected("model_info", self._model_info)),
            Route("/model-card", self._protected("model_info", self._model_card)),
            Route("/metrics", self._protected("metrics", self._figures)),
            Route("/openapi.json", openapi),
            Route("/docs", partial(page, "docs.html")),
            Route("/", partial(page, "try.html")),
            Route("/assets/{name}", asset),
        ]

    def _predicts(self, *accepted: str) -> Endpoint:
        """Return an endpoint that predicts the images of a request."""
        limits = self._bundle.serving.limits

        async def predict(request: Request) -> Response:
            begun = time.perf_counter()
            exchange = exchange_of(request.scope)
            self._guard.admit_address(request)
            principal = await self._guard.identify(request, "predict")
            exchange.key = principal.name
            scored = None
            if self._scorer.has_room() and self._asking < limits.max_requests:
                with suppress(QueueFullError, TimeoutError):
                    scored = await self._taken_on(request, principal, accepted)
            if scored is None:
                # Nothing is held any more: neither the images nor a place among those who ask.
                raise await self._sent_away()
            for one in scored:
                self._metrics.prediction(one.answer.label)
                if self._predictions is not None:
                    self._predictions.put(one, principal.name, exchange.request_id)
            return self._answer(scored, time.perf_counter() - begun)

        return predict

    async def _taken_on(
        self, request: Request, principal: Principal, accepted: tuple[str, ...]
    ) -> list[ScoredImage]:
        """Read a request's images and predict them.

        Raises:
            QueueFullError: They do not fit into the queue.
            TimeoutError: They waited too long in it.
        """
        self._asking += 1
        try:
            contents = await read_images(request, self._bundle.serving.limits, accepted)
            exchange_of(request.scope).images = len(contents)
            self._guard.admit(principal, len(contents))
            return await self._cache.answer(request, contents, self._scored)
        finally:
            self._asking -= 1

    async def _sent_away(self) -> ProblemError:
        """Return what is said when too much waits, but not at once.

        Who asks again at once would take the time of those who are answered; and uvloop accepts one
        connection each time round, so that new ones would wait for seconds. Only so many are kept
        waiting for their refusal as may ask: each of them holds a connection.
        """
        if self._refusing < self._bundle.serving.limits.max_requests:
            self._refusing += 1
            try:
                await asyncio.sleep(_SECONDS_BEFORE_REFUSAL)
            finally:
                self._refusing -= 1
        return overloaded()

    async def _scored(self, contents: list[bytes]) -> list[ScoredImage]:
        async with asyncio.timeout(self._bundle.serving.limits.answer_seconds):
            return await self._scorer.score(await self._decoded(contents))

    async def _decoded(self, contents: list[bytes]) -> list[Pixels]:
        images = []
        for position, content in enumerate(contents):
            try:
                images.append(await self._scorer.read_aside(content))
            except ImageError as error:
                which = "the image" if len(contents) == 1 else f"image {position}"
                raise ProblemError(422, "image", f"{which} cannot be used: {error}") from None
        return images

    def _answer(self, scored: list[ScoredImage], seconds: float) -> Response:
        predictions = [
            {"id": s.id, "label": s.answer.label, "probabilities": s.answer.probabilities}
            for s in scored
        ]
        body = _ENCODE(
            {
                "predictions": predictions,
                "model": self._bundle.model_name,
                "version": self._bundle.version,
                "milliseconds": round(1000 * seconds, 3),
                **({"cached": True} if any(s.cached for s in scored) else {}),
            }
        )
        headers = self._cache.headers(scored)
        return Response(body, headers=headers, media_type="application/json")

    def _protected(self, name: Literal["metrics", "model_info"], endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that asks for the role ``admin`` where it is configured to."""
        if name not in self._bundle.serving.access.protect:
            return endpoint

        async def protected(request: Request) -> Response:
            principal = await self._guard.identify(request, "admin")
            exchange_of(request.scope).key = principal.name
            return await endpoint(request)

        return protected

    async def _model_info(self, _request: Request) -> Response:
        bundle, contract = self._bundle, self._bundle.predictor.contract
        height, width, channels = contract.input_shape
        information: dict[str, Any] = {
            "model": bundle.model_name,
            "version": bundle.version,
            "stage": read_stage(self._state_file),
            "classes": contract.class_names,
            "input": {"height": height, "width": width, "channels": channels},
            "architecture": contract.model,
            "postprocessor": bundle.serving.postprocessor.model_dump(mode="json"),
            "predictor": bundle.predictor.fingerprint,
            "fingerprints": {**contract.fingerprints, **bundle.fingerprints},
            "metrics": dict(bundle.metrics),
            "run_id": bundle.run_id,
            "registration_id": bundle.registration_id,
            "git_commit": bundle.git_commit,
            "created": bundle.created,
            "card": "/model-card" if bundle.card_html is not None else None,
        }
        return JSONResponse(information)

    async def _model_card(self, _request: Request) -> Response:
        if self._bundle.card_html is None:
            raise ProblemError(404, "no-card", "this bundle was made without a model card")
        return card_page(self._bundle.card_html)

    async def _figures(self, _request: Request) -> Response:
        dropped = sum(log.dropped for log in (self._predictions, self._log) if log is not None)
        text = self._metrics.text(queue=self._scorer.waiting, dropped=dropped)
        return Response(text, headers={"content-type": CONTENT_TYPE})


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("\n")


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    exchange_of(request.scope).problem = error.kind
    return error.response()


async def _explain_framework(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return bare_problem(error.status_code, error.detail, error.headers)


async def _apologize(request: Request, _error: Exception) -> Response:
    """Say that it is our fault, and no more; the server's log has the traceback."""
    exchange = exchange_of(request.scope)
    exchange.problem = "internal"
    detail = f"the service failed; tell its operator the request id {exchange.request_id}"
    return bare_problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
