"""A typed client of the service, for Python programs and for ``run.py predict``."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx

from cv_factory.errors import CVFactoryError


class ServiceError(CVFactoryError):
    """The service did not answer, or refused.

    Attributes:
        status: Of the HTTP response; None if there was none.
        kind: What the service calls the problem, such as ``image``; empty if it did not say.
        retry_after: Seconds after which to try again, where the service said so.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        kind: str = "",
        retry_after: float | None = None,
    ) -> None:
        """Remember what happened."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True)
class ImagePrediction:
    """What the service says about one image.

    Attributes:
        id: By which ``run.py trace`` finds the prediction again.
        label: What it shows; None where the service abstains.
        probabilities: By label, most probable first.
        model: Name of the model that answered.
        version: Of that model.
        cached: Whether the service remembered it from an earlier request.
    """

    id: str
    label: str | None
    probabilities: dict[str, float]
    model: str
    version: str
    cached: bool = False


class PredictionClient(AbstractContextManager["PredictionClient"]):
    """Talks to one service; use it in a ``with`` block, or ``close`` it."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            url: Of the service, such as ``http://127.0.0.1:3000``.
            api_key: A key or a token, where the service asks for one.
            timeout: Seconds for each request.
            transport: In place of the network.
        """
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._url = url
        self._client = httpx.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport
        )

    def __exit__(self, *exc_info: object) -> None:
        """Close, whatever happened in the block."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def predict(self, image: bytes) -> ImagePrediction:
        """Predict one encoded image.

        Raises:
            ServiceError: The service refuses it or cannot be reached.
        """
        headers = {"Content-Type": "application/octet-stream"}
        return self._predictions("/predict", content=image, headers=headers)[0]

    def predict_batch(self, images: Sequence[bytes]) -> list[ImagePrediction]:
        """Predict several encoded images in one request, in their order.

        Raises:
            ServiceError: The service refuses them or cannot be reached.
        """
        files = [("images", (str(n), image)) for n, image in enumerate(images)]
        return self._predictions("/predict/batch", files=files)

    def model_info(self) -> dict[str, Any]:
        """Return what is served.

        Raises:
            ServiceError: The service refuses, or cannot be reached.
        """
        information: dict[str, Any] = self._send("GET", "/model-info")
        return information

    def is_ready(self) -> bool:
        """Whether the service is there and answers its golden samples as it should."""
        try:
            return self._client.get("/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _predictions(self, path: str, **content: Any) -> list[ImagePrediction]:
        answer = self._send("POST", path, **content)
        try:
            common: dict[str, Any] = {"model": answer["model"], "version": answer["version"]}
            common["cached"] = answer.get("cached", False)
            return [ImagePrediction(**one, **common) for one in answer["predictions"]]
        except (KeyError, TypeError) as error:
            raise ServiceError(f"{self._url} is no prediction service ({error!r}).") from None

    def _send(self, method: str, path: str, **content: Any) -> Any:
        try:
            response = self._client.request(method, path, **content)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServiceError(f"{self._url} cannot be reached: {reason}") from None
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        if response.is_success:
            return answer
        raise _refusal(self._url, response, answer if isinstance(answer, dict) else {})


def _refusal(url: str, response: httpx.Response, problem: dict[str, Any]) -> ServiceError:
    detail = problem.get("detail") or response.reason_phrase
    wait = response.headers.get("retry-after", "")
    return ServiceError(
        f"{url} refuses ({response.status_code}): {detail}",
        status=response.status_code,
        kind=str(problem.get("type", "")).rpartition(":")[2],
        retry_after=float(wait) if wait.isdigit() else None,
    )
