"""Labels in a table, CSV or Parquet, as people fill it in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cv_factory.config.problems import describe_error
from cv_factory.data.sources._rows import parse_text, strip_blanks
from cv_factory.data.sources._tables import open_table
from cv_factory.errors import DataError, ImageError
from cv_factory.serving.label_record import Label

_IMAGES = ("prediction_id", "image_hmac", "image")
_COLUMNS = (*_IMAGES, "label", "source", "is_blind")
_TRUTHS = {"": None, **dict.fromkeys(("true", "yes", "1"), True)}
_TRUTHS |= dict.fromkeys(("false", "no", "0"), False)
_ENCODING_HINT = "convert it: iconv -f ENCODING -t utf-8"


@dataclass(frozen=True)
class LabelFile:
    """Labels of a table.

    Attributes:
        labels: By number of the row, the first below the header being 1.
        n_empty: Number of rows without a label.
    """

    labels: Mapping[int, Label]
    n_empty: int


def read_label_file(
    path: Path, *, source: str, is_blind: bool, hash_image: Callable[[Path], str]
) -> LabelFile:
    """Read a table with the columns ``label`` and ``prediction_id``, ``image_hmac`` or ``image``.

    Args:
        path: The table; ``source`` and ``is_blind`` may be columns, too.
        source: Of rows that name none.
        is_blind: Of rows that do not say.
        hash_image: Returns the HMAC of an image file; paths are relative to the table.

    Raises:
        SourceError: It is no readable table.
        DataError: It lacks a column, or rows cannot be used; the message names each.
    """
    with path.open("rb") as file:
        table = open_table(file, str(path), None, _ENCODING_HINT)
        columns = {strip_blanks(name): name for name in table.columns}
        present = [name for name in _COLUMNS if name in columns]
        if "label" not in present or not set(present) & set(_IMAGES):
            raise DataError(
                f"{path} has the columns {', '.join(columns)}: it needs label, and one of "
                f"{', '.join(_IMAGES)}."
            )
        labels, problems, n_empty = {}, [], 0
        for number, row in enumerate(table.rows([columns[name] for name in present]), start=1):
            try:
                fields = {name: strip_blanks(parse_text(row[columns[name]])) for name in present}
                if not fields["label"]:
                    n_empty += 1
                    continue
                defaults = {"source": source, "is_blind": is_blind}
                labels[number] = _parse_label(fields, defaults, path.parent, hash_image)
            except ValidationError as error:
                problems.append(f"row {number}: {describe_error(error)}")
            except (ValueError, ImageError) as error:
                problems.append(f"row {number}: {error}")
    if problems:
        raise DataError(
            f"{path}: {len(problems)} rows cannot be used, and none was stored (row 1 is the first "
            "below the header):\n  " + "\n  ".join(problems)
        )
    return LabelFile(labels, n_empty)


def _parse_label(
    fields: Mapping[str, str],
    defaults: Mapping[str, Any],
    folder: Path,
    hash_image: Callable[[Path], str],
) -> Label:
    """Return the label of a row.

    Raises:
        ValueError: A field is wrong (pydantic's ``ValidationError`` is one).
        ImageError: The image cannot be read.
    """
    names = {name: fields.get(name) or None for name in ("prediction_id", "image_hmac")}
    image = fields.get("image")
    if image and not any(names.values()):
        names["image_hmac"] = hash_image(folder / image)
    is_blind = fields.get("is_blind", "").lower()
    if is_blind not in _TRUTHS:
        raise ValueError(f"is_blind: must be true or false (got {is_blind!r})")
    return Label(
        label=fields["label"],
        source=fields.get("source") or defaults["source"],
        is_blind=defaults["is_blind"] if not is_blind else bool(_TRUTHS[is_blind]),
        **names,
    )
