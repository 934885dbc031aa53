"""Mean and covariance of pixels, summed up in one pass without rounding where pixels are bytes.

Bytes are multiplied as bytes, by the instructions that processors have for it, into whole numbers
of 32 bits: some four times as fast as float32, and exact. Averages of pixels, and a GPU, take
products in float32 instead, which of whole numbers are exact as well in short chunks. Sums of them
in float64 are exact too: the covariance of bytes is the same in any order and on any machine.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.onnx_session import import_onnxruntime
from cv_factory.cpu import fitting_threads

Covariance = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

_SHIFT = 128
#: Rows multiplied at once. 4096 products of at most 255 x 255 are far below 2**31.
_ROWS = 4096
#: The matrix is symmetric: of at least 4 strips of about so many rows, each is computed from its
#: diagonal on.
_STRIPS, _STRIP_ROWS = 4, 384
#: Rows transposed at once, for the sake of the cache.
_TRANSPOSED = 128
#: 1024 products of at most 128 x 128 sum to at most 2**24, up to which float32 is exact.
_EXACT_ROWS = 1024
#: Below it the product takes less than importing torch, which finds the GPU.
_SMALLEST_ON_GPU = 1024


class Moments(Protocol):
    """Count, sum and products of rows that pass by."""

    count: int

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Add rows ``(n, D)`` of values 0 to 255."""

    def mean_and_covariance(self) -> Covariance:
        """Return the mean ``(D,)`` and covariance ``(D, D)`` of values / 255; call it once."""


def create_moments(dimension: int, *, whole: bool) -> Moments:
    """Return what sums up rows of so many values, which are bytes if ``whole``, else float32."""
    on_gpu = _product_on_gpu(dimension)
    if whole and on_gpu is None:
        return ByteMoments(dimension)
    return FloatMoments(dimension, on_gpu or _product)


class ByteMoments:
    """Moments of rows uint8 ``(n, D)`` on the CPU."""

    def __init__(self, dimension: int) -> None:
        """Begin with nothing."""
        self.count = 0
        self._sum = np.zeros(dimension)
        #: Products of the values with the values less ``_shift``; the upper part alone.
        self._gram = np.zeros((dimension, dimension))
        n_strips = max(_STRIPS, dimension // _STRIP_ROWS)
        bounds = np.linspace(0, dimension, n_strips + 1).astype(int).tolist()
        self._strips = [slice(*pair) for pair in itertools.pairwise(bounds)]
        self._multiply, self._shift = _byte_product()
        self._pool = ThreadPoolExecutor(fitting_threads(), thread_name_prefix="gram")

    def add(self, rows: npt.NDArray[np.uint8]) -> None:
        """See ``Moments``."""
        for start in range(0, len(rows), _ROWS):
            part = np.ascontiguousarray(rows[start : start + _ROWS])
            # The other sign bit: 0 to 255 become -128 to 127 in two's complement.
            right = (part ^ 128).view(np.int8) if self._shift else part
            for _ in self._pool.map(partial(self._add_strip, part, right), self._strips):
                pass
            self._sum += part.sum(axis=0, dtype=np.uint32)
            self.count += len(part)

    def _add_strip(
        self, rows: npt.NDArray[np.uint8], right: npt.NDArray[Any], strip: slice
    ) -> None:
        product = self._multiply(_transposed(rows[:, strip]), right[:, strip.start :])
        self._gram[strip, strip.start :] += product

    def mean_and_covariance(self) -> Covariance:
        """See ``Moments``."""
        self._pool.shutdown()
        offsets = self._sum - _SHIFT * self.count
        for strip in self._strips:
            upper = self._gram[strip, strip.start :]
            upper += (self._shift - _SHIFT) * self._sum[strip, None]
            upper -= _SHIFT * offsets[strip.start :]
            self._gram[strip.stop :, strip] = self._gram[strip, strip.stop :].T
        return _mean_and_covariance(self.count, offsets, self._gram)


class FloatMoments:
    """Moments of rows float32 ``(n, D)``; exact where the values are whole numbers."""

    def __init__(self, dimension: int, product: "_FloatProduct") -> None:
        """Begin with nothing; ``product`` maps rows to their Gram matrix."""
        self.count = 0
        self._sum = np.zeros(dimension)
        self._gram = np.zeros((dimension, dimension))
        self._product = product

    def add(self, rows: npt.NDArray[Any]) -> None:
        """See ``Moments``."""
        for start in range(0, len(rows), _EXACT_ROWS):
            part = rows[start : start + _EXACT_ROWS].astype(np.float32)
            part -= np.float32(_SHIFT)
            self._sum += part.sum(axis=0)
            self._gram += self._product(part)
            self.count += len(part)

    def mean_and_covariance(self) -> Covariance:
        """See ``Moments``."""
        return _mean_and_covariance(self.count, self._sum, self._gram)


def _mean_and_covariance(
    count: int, total: npt.NDArray[np.float64], gram: npt.NDArray[np.float64]
) -> Covariance:
    """Return mean and covariance of values / 255, given the moments of the values less 128."""
    offset, covariance = total / count, gram  # in place: it may be 75 MB
    for row, factor in zip(covariance, count * offset, strict=True):
        row -= factor * offset
    covariance /= (count - 1) * 255.0**2
    return (offset + _SHIFT) / 255, covariance


def _transposed(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    turned = np.empty(rows.shape[::-1], np.uint8)
    for start in range(0, len(rows), _TRANSPOSED):
        turned[:, start : start + _TRANSPOSED] = rows[start : start + _TRANSPOSED].T
    return turned


_ByteProduct = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[np.int32]]


def _byte_product() -> tuple[_ByteProduct, int]:
    """Return the product ``(p, n) x (n, q)`` of bytes and what the right side is to be less.

    The fastest takes signed bytes on the right (hence less 128). Processors without VNNI saturate
    in it (ONNX Runtime, "Quantize ONNX models", on U8S8): it is tried with the largest numbers, and
    left where it errs, for the one of unsigned bytes.
    """
    signed = _matmul_integer(np.dtype(np.int8))
    left, right = np.full((64, 256), 255, np.uint8), np.full((256, 64), -128, np.int8)
    if (signed(left, right) == 256 * 255 * -128).all():
        return signed, _SHIFT
    return _matmul_integer(np.dtype(np.uint8)), 0


def _matmul_integer(right: "np.dtype[Any]") -> _ByteProduct:
    from onnx import TensorProto, helper

    kinds = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8}
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "product",
        [
            helper.make_tensor_value_info("left", TensorProto.UINT8, ["p", "n"]),
            helper.make_tensor_value_info("right", kinds[right], ["n", "q"]),
        ],
        [helper.make_tensor_value_info("product", TensorProto.INT32, ["p", "q"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each strip has a thread, which does not spin
    options.enable_cpu_mem_arena = False  # it would keep the largest product
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def multiply(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        product: npt.NDArray[np.int32] = session.run(None, {"left": left, "right": right})[0]
        return product

    return multiply


_FloatProduct = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def _product(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    gram: npt.NDArray[np.float32] = rows.T @ rows
    return gram


def _product_on_gpu(dimension: int) -> _FloatProduct | None:
    """Return the function from rows to their Gram matrix on the GPU, where it pays and is there."""
    if dimension < _SMALLEST_ON_GPU:
        return None
    import torch

    if not torch.cuda.is_available():
        return None

    def product(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        on_device = torch.from_numpy(rows).cuda()
        gram: npt.NDArray[np.float32] = (on_device.T @ on_device).cpu().numpy()
        return gram

    return product
