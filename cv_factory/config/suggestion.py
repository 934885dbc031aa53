"""The end of an error about a wrong name: the nearest valid one, and all of them."""

import difflib
from collections.abc import Iterable


def suggest(name: str, valid: Iterable[str], kind: str = "names") -> str:
    """Return such as ``Did you mean 'epochs'? Valid keys: batch_size, epochs.``."""
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"Valid {kind}: {', '.join(names)}."
