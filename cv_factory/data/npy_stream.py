"""Writes an ``.npy`` file batch by batch, so that an array larger than memory can be stored."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt


class NpyStreamWriter:
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
        self._write_header()

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
            self._write_header()
            self._file.close()

    def _write_header(self) -> None:
        description = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, description)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, whatever happened."""
        self.close()
