"""LRU cache of predictions in this process.

Keys are hashes of an image's bytes, the predictor and the postprocessor, so another version's
prediction is never returned. A cached prediction gets an id of its own and is logged and counted as
any other.
"""

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from cv_factory.artifacts.files import canonical_json
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import Pixels, ScoredImage

#: Response header with ``hit`` or ``miss``; absent if the cache is off.
HEADER = "x-cache"
#: Request headers with cache control; SageMaker passes only the second one on.
_CONTROL_HEADERS = ("cache-control", "x-amzn-sagemaker-custom-attributes")


class ResponseCache:
    """The ``cache.max_entries`` most recently used predictions."""

    def __init__(self, bundle: Bundle, on_lookup: Callable[[bool], None]) -> None:
        """Start empty.

        Args:
            bundle: The predictor and its serving configuration.
            on_lookup: Called for each request with whether it was a hit.
        """
        self._max_entries = bundle.serving.cache.max_entries
        postprocessor = canonical_json(bundle.serving.postprocessor.model_dump(mode="json"))
        self._salt = hashlib.sha256(f"{bundle.predictor.fingerprint}\n{postprocessor}".encode())
        self._on_lookup = on_lookup
        self._entries: OrderedDict[bytes, ScoredImage] = OrderedDict()

    async def get_or_compute(
        self,
        images: Sequence[bytes | Pixels],
        compute: Callable[[Sequence[bytes | Pixels]], Awaitable[list[ScoredImage]]],
        may_use_cache: bool,
    ) -> list[ScoredImage]:
        """Return the predictions of a request: cached if all of its images are, else computed.

        Args:
            images: Encoded, or decoded, uint8 ``(H, W, C)``.
            compute: Predicts them.
            may_use_cache: False skips the lookup.
        """
        if not self._max_entries:
            return await compute(images)
        keys = [self._key(image) for image in images]
        if may_use_cache:
            cached = self._get(keys)
            self._on_lookup(cached is not None)
            if cached is not None:
                return cached
        results = await compute(images)
        self._put(keys, results)
        return results

    def headers(self, results: Sequence[ScoredImage]) -> dict[str, str]:
        """Return the response headers of some predictions."""
        if not self._max_entries:
            return {}
        return {HEADER: "hit" if any(result.is_cached for result in results) else "miss"}

    def _key(self, image: bytes | Pixels) -> bytes:
        digest = self._salt.copy()
        if not isinstance(image, bytes):
            digest.update(f"pixels {image.shape}\n".encode())
            image = image.tobytes()
        digest.update(image)
        return digest.digest()

    def _get(self, keys: list[bytes]) -> list[ScoredImage] | None:
        """Return the predictions with new ids if all keys are present, else None."""
        if not all(key in self._entries for key in keys):
            return None
        for key in keys:
            self._entries.move_to_end(key)
        return [replace(self._entries[key], id=str(uuid.uuid4()), is_cached=True) for key in keys]

    def _put(self, keys: list[bytes], results: list[ScoredImage]) -> None:
        for key, result in zip(keys, results, strict=True):
            self._entries[key] = result
            self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


def allows_cached_answer(headers: Mapping[str, str]) -> bool:
    """Whether a request may be answered from the cache.

    ``Cache-Control: no-cache``, or ``cache-control=no-cache`` among SageMaker's custom attributes,
    asks for a new prediction.

    Args:
        headers: By lower-case name.
    """
    return not any("no-cache" in headers.get(name, "") for name in _CONTROL_HEADERS)
