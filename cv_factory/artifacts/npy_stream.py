"""Writes an ``.npy`` file batch by batch, so that an array larger than memory can be stored."""

import ctypes
import errno
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.files import ArrayChecksum

#: Bytes hashed and then written at a time, few enough to be in the processor's cache still.
_CHUNK_BYTES = 512 * 2**10
#: Of arrays below, nothing is gained.
_MIN_RESERVED_BYTES = 16 * 2**20
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h


def save_array(path: Path, array: npt.NDArray[Any]) -> str:
    """Write an array as ``np.save`` does and return the checksum of the file.

    Args:
        path: The ``.npy`` file, created or overwritten.
        array: C-contiguous or not; at most 512 KiB or one row of it are copied at a time.

    Raises:
        OSError: The file cannot be written, or the disk lacks the space for it.
    """
    checksum = ArrayChecksum(array.nbytes)
    rows = max(1, _CHUNK_BYTES // max(1, array.itemsize * int(np.prod(array.shape[1:]))))
    with path.open("wb", buffering=0) as file:
        _write_header(file, array.dtype, array.shape)
        checksum.update(path.read_bytes())
        _reserve(file, array.nbytes)
        for start in range(0, len(array), rows):
            chunk = np.ascontiguousarray(array[start : start + rows]).reshape(-1).view(np.uint8)
            checksum.update(chunk.data)
            remaining = chunk.data
            while len(remaining):
                remaining = remaining[file.write(remaining) :]
    return checksum.format()


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve ``size`` bytes after the position, as NumPy does: ext4 writes them faster.

    The file's length stays, so that one whose writer was killed is not as long as a whole one.

    Raises:
        OSError: The disk lacks the space. File systems that cannot reserve are written to as well.
    """
    if size >= _MIN_RESERVED_BYTES:
        number = _fallocate(file.fileno(), file.tell(), size)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(number, os.strerror(number), file.name)


def _fallocate(descriptor: int, offset: int, size: int) -> int:
    """Call Linux's ``fallocate``; return the error number, 0 for none or on another system.

    ``os.posix_fallocate`` writes into every block where the file system cannot reserve.
    """
    if sys.platform != "linux":
        return 0
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return ctypes.get_errno() if function(descriptor, _KEEP_SIZE, offset, size) else 0


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    description = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, description)


class NpyStreamWriter(AbstractContextManager["NpyStreamWriter"]):
    """Appends rows to an ``.npy`` file whose number of rows is not known beforehand.

    NumPy pads the header for a growing first axis, so the final header fits over the first one.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Open the file.

        Args:
            path: The ``.npy`` file, created or overwritten.
            row_shape: Shape of one row; the array will be ``(rows, *row_shape)``.
            dtype: Type of the elements.
        """
        self._row_shape = row_shape
        self._dtype = np.dtype(dtype)
        self._rows = 0
        self._file = path.open("wb")
        _write_header(self._file, self._dtype, (0, *self._row_shape))

    def __exit__(self, *exc_info: object) -> None:
        """Close, whatever happened in the block."""
        self.close()

    def append(self, batch: npt.NDArray[Any]) -> None:
        """Append rows.

        Raises:
            ValueError: The batch is not ``(n, *row_shape)`` of the writer's dtype.
        """
        if batch.shape[1:] != self._row_shape or batch.dtype != self._dtype:
            raise ValueError(
                f"expected {self._dtype} rows of shape {self._row_shape}, "
                f"got {batch.dtype} {batch.shape[1:]}"
            )
        self._file.write(np.ascontiguousarray(batch).data)
        self._rows += len(batch)

    def close(self) -> None:
        """Write the final number of rows into the header and close the file."""
        if not self._file.closed:
            self._file.seek(0)
            _write_header(self._file, self._dtype, (self._rows, *self._row_shape))
            self._file.close()
