"""The end of an error about a wrong name: the nearest valid one, and all of them."""

import difflib
from collections.abc import Iterable

#: Names that other tools give to what a setting here calls otherwise.
_SYNONYMS = {
    "acc": "accuracy",
    "adam": "adamw",
    "auc": "roc_auc",
    "bfloat16": "bf16",
    "csv": "manifest",
    "f1": "macro_f1",
    "float16": "fp16",
    "float32": "fp32",
    "fp16": "float16",
    "fp32": "float32",
    "gpu": "cuda",
    "half": "fp16",
    "imagefolder": "folder",
    "logreg": "logistic_regression",
    "parquet": "manifest",
}


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that was probably meant; None if none is near."""
    by_folded_name = {candidate.casefold(): candidate for candidate in valid}
    folded = name.casefold()
    if (synonym := _SYNONYMS.get(folded)) in by_folded_name:
        return synonym
    near = difflib.get_close_matches(folded, by_folded_name, n=1, cutoff=0.5)
    return by_folded_name[near[0]] if near else None


def suggest(name: str, valid: Iterable[str], kind: str = "names") -> str:
    """Return such as ``Did you mean 'epochs'? Valid keys: batch_size, epochs.``."""
    names = list(valid)
    near = nearest(name, names)
    return (f"Did you mean {near!r}? " if near else "") + f"Valid {kind}: {', '.join(names)}."
