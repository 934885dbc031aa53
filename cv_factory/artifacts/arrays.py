"""Reads stored arrays without ever executing what is stored: .npy, .npz and safetensors."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cv_factory.errors import ArtifactError


def load_array(path: Path, *, mmap: bool = False) -> npt.NDArray[Any]:
    """Load an ``.npy`` file without ever unpickling.

    Raises:
        ArtifactError: The file is not a plain ``.npy`` array.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(f"{path} is not a plain .npy array ({error}).") from None
    if not isinstance(array, np.ndarray):
        raise ArtifactError(f"{path} is an archive, expected a plain .npy array.")
    return array


def load_npz(path: Path, names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """Load named arrays from an ``.npz`` file without ever unpickling.

    Raises:
        ArtifactError: The file is no such archive or lacks one of the arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(
            f"{path} is not an .npz archive of {', '.join(names)} ({error})."
        ) from None


def load_tensors(path: Path, names: tuple[str, ...] = ()) -> dict[str, npt.NDArray[Any]]:
    """Read a safetensors file and check that it holds the named tensors.

    Raises:
        ArtifactError: It is no safetensors file or lacks one of them.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors: dict[str, npt.NDArray[Any]] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is not a safetensors file ({error}).") from None
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ArtifactError(f"{path} lacks the tensors {', '.join(missing)}.")
    return tensors
