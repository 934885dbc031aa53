"""``run.py feedback``: store the true classes of images that were predicted before."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import MODEL_OPTION, STACK_OPTION, validate_audit_text
from cli.session import activate_stack, current_user
from cv_factory.errors import ConfigError

if TYPE_CHECKING:
    from cv_factory.serving.label_record import Label


@click.command("feedback")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--source",
    callback=validate_audit_text,
    metavar="TEXT",
    help="Whose labels they are, where a row does not say: person:NAME, system:NAME or "
    "model:NAME/VERSION.  [default: person: and your user name]",
)
@click.option(
    "--blind", is_flag=True, help="Whoever labelled did not see predictions, if no row says so."
)
@MODEL_OPTION
@STACK_OPTION
def command(
    file: Path, source: str | None, blind: bool, model_name: str | None, stack: str | None
) -> int:
    """Store the labels of FILE, a CSV or Parquet table.

    It has the columns label and prediction_id, image_hmac or image (a path); source and is_blind
    if you like. Rows without a label are skipped. If a row cannot be used, none is stored.
    """
    activate_stack(stack)
    from cv_factory.monitoring.label_file import read_label_file
    from registry.versions import resolve_model_name

    name = resolve_model_name(model_name)
    table = read_label_file(
        file,
        source=source or f"person:{current_user()}",
        is_blind=blind,
        hash_image=_image_hasher(name),
    )
    n_new = _store(name, file, table.labels)
    known = (
        f", {len(table.labels) - n_new:,} were stored before" if n_new < len(table.labels) else ""
    )
    empty = f", {table.n_empty:,} rows have no label" if table.n_empty else ""
    click.echo(f"Labels of {name}: {n_new:,} new{known}{empty}.")
    click.echo(_describe_matches(name, table.labels))
    return 0


def _store(model_name: str, file: Path, labels: Mapping[int, "Label"]) -> int:
    """Store the labels of a file and return how many are new.

    The same row of the same file is the same label: given again, it changes nothing.
    """
    from cv_factory.artifacts.files import sha256_file
    from cv_factory.monitoring.labels import RECORD_COLUMNS, build_table
    from cv_factory.serving.label_record import build_record
    from cv_factory.serving.logging.json_lines import timestamp
    from registry.label_store import open_label_store

    time, digest = timestamp(), sha256_file(file)
    records = [
        build_record(label, model=model_name, key=None, time=time, origin=f"{digest}/{number}")
        for number, label in labels.items()
    ]
    return open_label_store(model_name).add(build_table(records, RECORD_COLUMNS))


def _image_hasher(model_name: str) -> Callable[[Path], str]:
    """Return a function that returns the HMAC by which the prediction log knows an image.

    It raises ``ConfigError`` where no deployed service logs predictions, and ``ImageError`` or
    ``ValueError`` for a file that is no image.
    """

    @cache
    def hasher() -> Callable[[bytes], str]:
        from registry.logged_images import open_image_hasher

        return open_image_hasher(model_name)

    def hash_image(path: Path) -> str:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        return hasher()(content)

    return hash_image


def _describe_matches(model_name: str, labels: Mapping[int, "Label"]) -> str:
    """Return how many labels belong to a logged prediction, and which do not."""
    from cv_factory.monitoring.labels import find_unmatched
    from registry.monitoring_store import load_window

    try:
        window = load_window(model_name)
    except ConfigError as error:
        return f"Not compared with predictions: {error}"
    numbers = list(labels)
    unmatched = [numbers[n] for n in find_unmatched(window, list(labels.values()))]
    unknown = sorted({label.label for label in labels.values()} - set(window.class_names))
    lines = [f"{len(labels) - len(unmatched):,} belong to logged predictions."]
    if unmatched:
        rows = ", ".join(map(str, unmatched[:20])) + (" ..." if len(unmatched) > 20 else "")
        lines.append(f"{len(unmatched):,} belong to none, perhaps not yet: rows {rows}.")
    if unknown:
        lines.append(
            f"Labels that are no class of {model_name}, and count as its errors: "
            f"{', '.join(unknown[:20])}."
        )
    return "\n".join(lines)
