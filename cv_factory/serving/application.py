"""ASGI application of a bundle: its routes and their handlers. It does not depend on BentoML."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from cv_factory.inference.predictor import CalibrationCheck
from cv_factory.serving.auth.access import AccessControl, read_credential
from cv_factory.serving.auth.api_keys import ApiKeyStore
from cv_factory.serving.auth.principal import Role
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.feedback import FEEDBACK_PATH, FeedbackEndpoint
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.json_encoder import encode_json
from cv_factory.serving.logging.json_lines import EVENT_LOGGER, AsyncLineWriter
from cv_factory.serving.middleware import RequestHandler, RequestMiddleware, get_request_context
from cv_factory.serving.openapi import build_openapi
from cv_factory.serving.pages import asset, card_page, page
from cv_factory.serving.pages.samples import encode_samples
from cv_factory.serving.prediction_service import PredictionService
from cv_factory.serving.problem_details import ProblemError, internal_error, status_error
from cv_factory.serving.prometheus_metrics import CONTENT_TYPE, ServiceMetrics
from cv_factory.serving.protocols.open_inference_rest import (
    LENGTH_HEADER,
    PREFIX,
    OpenInferenceRest,
)
from cv_factory.serving.protocols.open_inference_rest import error_response as open_inference_error
from cv_factory.serving.protocols.websocket import WebSocketPredictions
from cv_factory.serving.request_log import RequestLog
from cv_factory.serving.request_parsing import (
    FORM,
    JSON,
    RAW_IMAGE,
    parse_images,
    read_caller,
)
from cv_factory.serving.response_cache import allows_cached_answer
from cv_factory.serving.service_environment import ServiceState
from cv_factory.serving.websocket_protocol import WEBSOCKET_PATH

if TYPE_CHECKING:
    from cv_factory.serving.protocols.grpc_server import GrpcServer


class Application:
    """ASGI application of one bundle; call ``close`` when it is no longer needed."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        keys: ApiKeyStore | None = None,
        state_file: Path | None = None,
        is_restart: bool = False,
    ) -> None:
        """Build the graph, verify the golden samples and open the logs.

        Args:
            bundle: The predictor and its serving configuration.
            keys: Accepted API keys; without them and without ``access.jwt`` the service is open.
            state_file: JSON file with the present stage and arm; see ``service_environment``.
            is_restart: Whether this process replaces one that has served: then the issuer's keys
                and the prediction log's folder may be missing for a while.

        Raises:
            ArtifactError: The predictor's golden samples differ from their values at export.
            ConfigError: The token issuer's keys cannot be fetched, the prediction log's folder
                cannot be created, or the postprocessor does not fit the predictor.
        """
        self._bundle = bundle
        serving = bundle.serving
        self._state = ServiceState(state_file)
        self._metrics = ServiceMetrics(
            bundle.model_name,
            bundle.version,
            has_familiarity=bundle.predictor.contract.familiarity is not None,
            workers=serving.workers,
        )
        self._access = AccessControl(serving, keys, is_restart=is_restart)
        self._predictions = PredictionService(
            bundle, self._access, self._metrics, self._state, is_restart=is_restart
        )
        self._request_lines = (
            AsyncLineWriter(EVENT_LOGGER.info, on_drop=self._metrics.count_dropped)
            if serving.log.requests
            else None
        )
        if serving.workers > 1:
            self._metrics.start_sampling(lambda: self._predictions.queue_length)
        self._request_log = RequestLog(self._metrics, self._request_lines)
        open_inference = OpenInferenceRest(bundle, self._predictions)
        protect = partial(self._protect, "model_info")
        routes = [*self._routes(), *open_inference.routes(protect)]
        exception_handlers = {
            ProblemError: _problem_response,
            HTTPException: _http_error_response,
            Exception: _internal_error_response,
        }
        app = Starlette(routes=routes, exception_handlers=exception_handlers)
        # A redirect has no prediction, and clients such as curl take it for a success.
        app.router.redirect_slashes = False
        self._middleware = RequestMiddleware(
            _allow_origins(app, serving.access.origins),
            {route.path: route.path for route in routes} | open_inference.paths(),
            self._request_log,
            serving.limits.body_seconds,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        await self._middleware(scope, receive, send)

    async def is_ready(self) -> bool:
        """Whether the golden samples are predicted as at export; logs why not."""
        return await self._predictions.is_ready()

    def build_grpc_server(self) -> "GrpcServer":
        """Return a gRPC server of the same predictions, which is not started yet."""
        from cv_factory.serving.protocols.grpc_server import GrpcServer
        from cv_factory.serving.protocols.open_inference_grpc import OpenInferenceGrpc

        methods = OpenInferenceGrpc(
            self._bundle, self._predictions, self._access, self._request_log
        )
        return GrpcServer(methods, self.is_ready, self._bundle.serving.limits)

    def close(self) -> None:
        """Flush the logs and stop the threads."""
        self._predictions.close()
        self._metrics.close()
        if self._request_lines is not None:
            self._request_lines.close()

    def _routes(self) -> list[Route | WebSocketRoute]:
        specification = build_openapi(self._bundle, is_open=self._access.is_open)

        async def openapi(_request: Request) -> Response:
            return JSONResponse(specification)

        predict, protect = self._prediction_endpoint, self._protect
        websocket = WebSocketPredictions(
            self._bundle.serving,
            self._access,
            self._predictions,
            self._metrics,
            self._request_log,
            self._describe_predictions,
        )
        feedback = FeedbackEndpoint(
            self._bundle.model_name, self._bundle.serving, self._access, self._metrics
        )
        return [
            Route(FEEDBACK_PATH, feedback.handle, methods=["POST"]),
            Route("/predict", predict(RAW_IMAGE, FORM), methods=["POST"]),
            Route("/predict/batch", predict(FORM, JSON), methods=["POST"]),
            Route("/invocations", predict(RAW_IMAGE, FORM, JSON), methods=["POST"]),
            Route("/ping", _liveness),
            Route("/healthz", _liveness),
            Route("/model-info", protect("model_info", self._model_info)),
            Route("/model-card", protect("model_info", self._model_card)),
            Route("/metrics", protect("metrics", self._prometheus_metrics)),
            Route("/samples", self._samples),
            Route("/openapi.json", openapi),
            Route(WEBSOCKET_PATH, _require_upgrade),
            WebSocketRoute(WEBSOCKET_PATH, websocket.serve),
            Route("/docs", partial(page, "docs.html")),
            Route("/", partial(page, "try.html")),
            Route("/assets/{name}", asset),
        ]

    def _prediction_endpoint(self, *content_types: str) -> RequestHandler:
        """Return the handler that predicts the images of requests of these content types."""
        limits = self._bundle.serving.limits

        async def predict(request: Request) -> Response:
            start = time.perf_counter()
            results = await self._predictions.predict(
                read_caller(request),
                partial(parse_images, request, limits, content_types),
                get_request_context(request.scope),
                may_use_cache=allows_cached_answer(request.headers),
            )
            return self._prediction_response(results, time.perf_counter() - start)

        return predict

    def _describe_predictions(
        self, results: Sequence[ScoredImage], seconds: float
    ) -> dict[str, Any]:
        return {
            "predictions": [r.to_dict() for r in results],
            "model": self._bundle.model_name,
            "version": self._bundle.version,
            "milliseconds": round(1000 * seconds, 3),
            **({"cached": True} if any(r.is_cached for r in results) else {}),
        }

    def _prediction_response(self, results: list[ScoredImage], seconds: float) -> Response:
        body = encode_json(self._describe_predictions(results, seconds))
        headers = self._predictions.cache.headers(results)
        return Response(body, headers=headers, media_type="application/json")

    def _protect(
        self, name: Literal["metrics", "model_info"], handler: RequestHandler
    ) -> RequestHandler:
        """Return a handler that requires the role ``admin`` if ``access.protect`` names it."""
        if name not in self._bundle.serving.access.protect:
            return handler

        async def protected(request: Request) -> Response:
            await self._require_role(request, "admin")
            return await handler(request)

        return protected

    async def _require_role(self, request: Request, role: Role) -> None:
        """Refuse a request whose sender lacks a role.

        Raises:
            ProblemError: 401 or 403.
        """
        principal = await self._access.identify(read_credential(request.headers), role)
        get_request_context(request.scope).principal_name = principal.name

    async def _model_info(self, _request: Request) -> Response:
        bundle, contract = self._bundle, self._bundle.predictor.contract
        height, width, channels = contract.input_shape
        information: dict[str, Any] = {
            "model": bundle.model_name,
            "version": bundle.version,
            "stage": self._state.stage,
            "arm": self._state.arm,
            "rollout": self._state.rollout,
            "classes": contract.class_names,
            "input": {"height": height, "width": width, "channels": channels},
            "familiarity": contract.familiarity and asdict(contract.familiarity),
            "calibration": _describe_calibration(contract.calibration),
            **({"backbone": asdict(contract.backbone)} if contract.backbone else {}),
            "architecture": contract.model,
            "postprocessor": bundle.serving.postprocessor.model_dump(mode="json"),
            "predictor": bundle.predictor.fingerprint,
            "fingerprints": {**contract.fingerprints, **bundle.fingerprints},
            "metrics": dict(bundle.metrics),
            "overrides": list(bundle.overrides),
            "run_id": bundle.run_id,
            "registration_id": bundle.registration_id,
            "git_commit": bundle.git_commit,
            "created": bundle.created,
            "card": "/model-card" if bundle.card_html is not None else None,
        }
        return JSONResponse(information)

    async def _model_card(self, _request: Request) -> Response:
        if self._bundle.card_html is None:
            raise ProblemError(404, "no-card", "this bundle was built without a model card")
        return card_page(self._bundle.card_html)

    async def _samples(self, request: Request) -> Response:
        """Return golden samples, which are images of the data set: for those who may predict."""
        await self._require_role(request, "predict")
        return JSONResponse({"images": self._sample_images})

    @cached_property
    def _sample_images(self) -> list[str]:
        return encode_samples(self._bundle.predictor.golden)

    async def _prometheus_metrics(self, _request: Request) -> Response:
        text = self._metrics.render(queue=self._predictions.queue_length)
        return Response(text, headers={"content-type": CONTENT_TYPE})


def _describe_calibration(check: CalibrationCheck | None) -> dict[str, Any] | None:
    """Return on how many validation images the probabilities were calibrated, and any weakness."""
    return None if check is None else {"n_images": check.n_images, "warning": check.warning}


def _allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return an application that browsers may call from pages of other origins."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "cache-control", "content-encoding", "content-type",
                       LENGTH_HEADER, "x-api-key", "x-request-id"],
        expose_headers=[LENGTH_HEADER, "retry-after", "x-cache", "x-request-id"],
    )  # fmt: skip


async def _require_upgrade(_request: Request) -> Response:
    detail = "this route speaks WebSocket: connect with a WebSocket client"
    raise ProblemError(426, "upgrade-required", detail, {"Upgrade": "websocket"})


async def _liveness(_request: Request) -> Response:
    return PlainTextResponse("\n")


async def _problem_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    get_request_context(request.scope).problem = error.kind
    return _error_response(request, error)


async def _http_error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail, path = error.detail, request.url.path.rstrip("/")
    if error.status_code == 404 and any(route.path == path for route in request.app.routes):
        detail = f"there is no {request.url.path}: send the request to {path}, without the slash"
    return _error_response(request, status_error(error.status_code, detail, error.headers))


async def _internal_error_response(request: Request, _error: Exception) -> Response:
    """Return a 500 without details; Starlette logs the traceback."""
    context = get_request_context(request.scope)
    context.problem = "internal"
    return _error_response(request, internal_error(context.request_id))


def _error_response(request: Request, error: ProblemError) -> Response:
    """Return an error in the form of the protocol that a request's path is of."""
    is_open_inference = f"{request.url.path}/".startswith(f"{PREFIX}/")
    return open_inference_error(error) if is_open_inference else error.response()
