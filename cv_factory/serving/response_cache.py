"""Remembers the answers to the images that were asked about last, in this process and no other.

Keyed on the images' bytes, the predictor and the postprocessor: no other version's answer can be
met. An answer from here has an id of its own, and is logged and counted as any other.
"""

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from starlette.requests import Request

from cv_factory.artifacts.files import canonical_json
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import ScoredImage

#: Of an answer: whether it was remembered. Absent where nothing is.
HEADER = "x-cache"
#: Of a request: the second is what SageMaker hands on of the first, if the client puts it there.
_CONTROLS = ("cache-control", "x-amzn-sagemaker-custom-attributes")


class ResponseCache:
    """The latest ``cache.max_entries`` answers; what was not asked for longest goes first."""

    def __init__(self, bundle: Bundle, on_lookup: Callable[[bool], None]) -> None:
        """Start empty.

        Args:
            bundle: Whose answers are kept.
            on_lookup: Told of each request whether its answers were there.
        """
        self._max_entries = bundle.serving.cache.max_entries
        postprocessor = canonical_json(bundle.serving.postprocessor.model_dump(mode="json"))
        self._salt = hashlib.sha256(f"{bundle.predictor.fingerprint}\n{postprocessor}".encode())
        self._on_lookup = on_lookup
        self._kept: OrderedDict[bytes, ScoredImage] = OrderedDict()

    async def answer(
        self,
        request: Request,
        contents: list[bytes],
        ask: Callable[[list[bytes]], Awaitable[list[ScoredImage]]],
    ) -> list[ScoredImage]:
        """Return the answers of a request: remembered if all of its images are known, else asked.

        Args:
            request: With ``Cache-Control: no-cache`` nothing that is remembered is looked at, nor
                with ``cache-control=no-cache`` among the custom attributes of SageMaker.
            contents: Encoded images.
            ask: Answers them.
        """
        if not self._max_entries:
            return await ask(contents)
        keys = [self._key(content) for content in contents]
        if not any("no-cache" in request.headers.get(name, "") for name in _CONTROLS):
            known = self._find(keys)
            self._on_lookup(known is not None)
            if known is not None:
                return known
        answered = await ask(contents)
        self._keep(keys, answered)
        return answered

    def headers(self, answered: Sequence[ScoredImage]) -> dict[str, str]:
        """Return what is told beside some answers."""
        if not self._max_entries:
            return {}
        return {HEADER: "hit" if any(one.cached for one in answered) else "miss"}

    def _key(self, content: bytes) -> bytes:
        digest = self._salt.copy()
        digest.update(content)
        return digest.digest()

    def _find(self, keys: list[bytes]) -> list[ScoredImage] | None:
        """Return the answers if all are there, each with a new id."""
        if not all(key in self._kept for key in keys):
            return None
        for key in keys:
            self._kept.move_to_end(key)
        return [replace(self._kept[key], id=str(uuid.uuid4()), cached=True) for key in keys]

    def _keep(self, keys: list[bytes], answered: list[ScoredImage]) -> None:
        for key, one in zip(keys, answered, strict=True):
            self._kept[key] = one
            self._kept.move_to_end(key)
        while len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)
