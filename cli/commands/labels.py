"""``run.py labels``: choose what to label, see what the labels say, and which are doubtful."""

import csv
import json
import shlex
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import JSON_OPTION, MODEL_OPTION, STACK_OPTION
from cli.session import activate_stack, open_registry, write_new
from cv_factory.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from cv_factory.monitoring.labels import LabelReport
    from cv_factory.monitoring.report import LabeledAccuracy
    from cv_factory.monitoring.window import Window

_COLUMNS = ("prediction_id", "image_hmac", "time", "version", "label", "source", "is_blind")
_DAYS_OPTION = click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    help="Only predictions of the last days.  [default: all]",
)


@click.group("labels")
def command() -> None:
    """Choose what to label, and find doubtful labels."""


@command.command("queue")
@click.option(
    "--n", default=100, show_default=True, type=click.IntRange(1), help="About how many images."
)
@click.option(
    "--to",
    "file",
    default="labels.csv",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="New CSV to fill in, for run.py feedback.",
)
@click.option(
    "--uniform",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0.2, 1.0),
    help="Part that is chosen whatever was predicted.",
)
@click.option(
    "--disagreements", is_flag=True, help="As many of the others as possible, for a rollout."
)
@click.option("--version", type=click.IntRange(1), help="Only predictions of this version.")
@_DAYS_OPTION
@click.option("--unanswered", is_flag=True, help="What was chosen before and has no label yet.")
@click.option(
    "--show-predictions", is_flag=True, help="With the predictions: the labels are not blind."
)
@MODEL_OPTION
@STACK_OPTION
def queue(
    n: int,
    file: Path,
    uniform: float,
    disagreements: bool,
    version: int | None,
    days: float | None,
    unanswered: bool,
    show_predictions: bool,
    model_name: str | None,
    stack: str | None,
) -> int:
    """Write a CSV of images to label.

    A part is chosen uniformly, the others where versions disagree, the model is uncertain, or the
    image is unfamiliar; with known probabilities, so that what the labels say is not biased.
    """
    _refuse_existing(file, "--to")
    name, window = _load_window(model_name, stack, days, version)
    if unanswered:
        chosen = window.rows["inclusion_probability"].notna().to_numpy() & ~window.has_label
        positions = chosen.nonzero()[0]
    else:
        positions = _draw(name, window, n, (uniform, 1.0 if disagreements else 0.5), version)
    _write_queue(file, window, positions, show_predictions)
    click.echo(f"{file}: {len(positions):,} images of {name} to label.")
    click.echo(f"Fill in the column label, then: python run.py feedback {file} --model {name}")
    return 0


def _draw(
    model_name: str, window: "Window", n: int, shares: tuple[float, float], version: int | None
) -> "np.ndarray[Any, Any]":
    """Draw images that were not chosen before, store the sample, and return their positions."""
    from cv_factory.monitoring.label_sampling import draw_queue
    from registry.label_store import load_labels, open_label_store

    times = window.rows["time"]
    # What is logged later belongs to the next queue.
    end = times.max() + timedelta(milliseconds=1)
    span = times.min(), end, None if version is None else str(version)
    drawn = draw_queue(
        window,
        n,
        span,
        datetime.now(UTC),
        uniform_share=shares[0],
        disagreement_share=shares[1],
        earlier=load_labels(model_name).frames,
    )
    open_label_store(model_name).add_sample(drawn)
    has_label = window.has_label[drawn.positions]
    return drawn.positions[~has_label]


def _write_queue(
    file: Path, window: "Window", positions: "np.ndarray[Any, Any]", show_predictions: bool
) -> None:
    """Write the rows of a window as a CSV whose labels are to be filled in."""
    shown = ("predicted", "confidence") if show_predictions else ()
    try:
        with file.open("x", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, [*_COLUMNS, *shown])
            writer.writeheader()
            for position in positions:
                row = window.rows.iloc[position]
                fields = {
                    "prediction_id": row["id"],
                    "image_hmac": row["image_hmac"] if isinstance(row["image_hmac"], str) else "",
                    "time": row["time"].isoformat(timespec="seconds"),
                    "version": row["version"],
                    "is_blind": str(not show_predictions).lower(),
                }
                if show_predictions:
                    fields["predicted"] = window.class_names[row["predicted"]]
                    fields["confidence"] = f"{window.probabilities[position].max():.3f}"
                writer.writerow(fields)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written ({error.strerror}). What was chosen is stored: give the "
            "command again with --unanswered"
        ) from None


@command.command("status")
@_DAYS_OPTION
@MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def status(days: float | None, model_name: str | None, stack: str | None, as_json: bool) -> int:
    """Show how many predictions have labels, by day and version, and the accuracy by them."""
    name, window = _load_window(model_name, stack, days, None)
    from cv_factory.monitoring.labeled_accuracy import estimate_accuracy
    from cv_factory.monitoring.labels import describe_labels
    from registry.label_store import load_labels

    labels = load_labels(name)
    report = describe_labels(window, labels)
    versions = sorted(window.rows["version"].unique())
    accuracies = {
        version: estimate_accuracy(
            window.select((window.rows["version"] == version).to_numpy(bool)), labels.frames
        )
        for version in versions
    }
    if as_json:
        estimates = {version: asdict(accuracy) for version, accuracy in accuracies.items()}
        click.echo(json.dumps({"model": name, **asdict(report), "accuracy": estimates}, indent=2))
        return 0
    click.echo(_describe(name, report, accuracies))
    return 0


@command.command("suspicious")
@click.option(
    "--out",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="New CSV: id, path, part, kind, given and likely label, score.",
)
@click.option("--version", type=click.IntRange(1), help="Of the model.  [default: the newest]")
@MODEL_OPTION
@STACK_OPTION
def suspicious(file: Path, version: int | None, model_name: str | None, stack: str | None) -> int:
    """Write a CSV of doubtful labels, near duplicates and outliers.

    Of the images that a model was trained on; with neither --model nor --version, of those that
    were trained on or validated last. Runs whose configuration has a section "features" look for
    them.
    """
    _refuse_existing(file)
    activate_stack(stack)
    from registry.stored_issues import load_issues

    issues, origin = load_issues(model_name, version)
    with write_new(file) as opened:
        issues.write_csv(opened)
    click.echo(f"{file}: {issues.summary} among {issues.n_images:,} images of {origin}.")
    for notice in issues.notices:
        click.echo(notice)
    click.echo(
        "Look at them, and correct labels at their source. Remove the rows of images that are "
        f"right; the others are left out by: --set data.exclude={shlex.quote(str(file))}"
    )
    return 0


@command.command("next")
@click.option(
    "--from",
    "folder",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images without labels.",
)
@click.option("--n", default=100, show_default=True, type=click.IntRange(1), help="How many.")
@click.option(
    "--out",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="New CSV to fill in, in or above the folder.",
)
@MODEL_OPTION
@STACK_OPTION
def next_images(folder: Path, n: int, file: Path, model_name: str | None, stack: str | None) -> int:
    """Write a CSV of images whose labels would teach most.

    Of a folder without labels, those that the version in production, or else in staging, is
    uncertain of, and that are unlike each other. Once the column label is filled in, --set
    data.additional=FILE trains on them, too.
    """
    _refuse_existing(file)
    if not folder.resolve().is_relative_to(file.parent.resolve()):
        raise ConfigError(
            f"{folder} does not lie below the folder of {file}, where data.additional looks for "
            f"images: give --out {shlex.quote(str(folder.resolve().parent / file.name))}"
        )
    registry = open_registry(model_name, stack, beside_transitions=True)
    from cv_factory.curation.label_selection import rank_folder
    from registry.versions import load_predictor

    stages = {stage: number for number, stage in registry.settled_stages().items()}
    number = stages.get("production") or stages.get("staging")
    if number is None:
        raise ConfigError(
            f"{registry.model_name} has no version in production or staging: see python run.py "
            f"models --model {registry.model_name}"
        )
    selection = rank_folder(load_predictor(registry.get_version(number)), folder, n)
    with write_new(file) as opened:
        selection.write_csv(opened, file.parent)
    click.echo(
        f"{file}: {len(selection.images):,} of {selection.n_images:,} images to label, by "
        f"{registry.model_name} version {number}."
    )
    if selection.unreadable:
        id_, reason = selection.unreadable[0]
        click.echo(f"{len(selection.unreadable):,} cannot be read, such as {id_}: {reason}.")
    click.echo(f"Fill in the column label, then: --set data.additional={shlex.quote(str(file))}")
    return 0


def _refuse_existing(file: Path, option: str = "--out") -> None:
    if file.exists():
        raise ConfigError(f"{file} exists: name another file ({option}), or move it away.")


def _load_window(
    model_name: str | None, stack: str | None, days: float | None, version: int | None
) -> tuple[str, "Window"]:
    """Load the predictions of a model with their labels.

    Raises:
        ConfigError: There are none.
    """
    activate_stack(stack)
    from registry.monitoring_store import load_window
    from registry.versions import resolve_model_name

    name = resolve_model_name(model_name)
    start = None if days is None else datetime.now(UTC) - timedelta(days=days)
    window = load_window(name, start, version=None if version is None else str(version))
    if not len(window):
        raise ConfigError(f"The prediction log of {name} has no predictions in this span.")
    return name, window


def _describe(
    model_name: str, report: "LabelReport", accuracies: dict[str, "LabeledAccuracy"]
) -> str:
    sources = ", ".join(f"{n:,} by a {kind}" for kind, n in sorted(report.sources.items()))
    lines = [
        f"{model_name}: {report.n_labeled:,} predictions have a label"
        + (f" ({sources}; {report.n_not_blind:,} in view of the prediction)" if sources else "")
    ]
    for row in report.coverage:
        lines.append(
            f"  {row.day}  version {row.version}  {row.n_labels:,} of {row.n_predictions:,} "
            f"({row.share:.1%})"
        )
    for version, accuracy in accuracies.items():
        lines.append(f"  version {version}: {_describe_accuracy(accuracy)}")
    if report.n_unmatched:
        some = ", ".join(report.unmatched)
        lines.append(f"  {report.n_unmatched:,} labels of no prediction here, such as {some}")
    if report.unknown_classes:
        some = ", ".join(f"{label} ({n})" for label, n in report.unknown_classes.items())
        lines.append(f"  labels that are no class of the model: {some}")
    return "\n".join(lines)


def _describe_accuracy(accuracy: "LabeledAccuracy") -> str:
    if accuracy.accuracy is None:
        return f"no accuracy by labels, because {accuracy.reason}"
    assert accuracy.low is not None
    assert accuracy.high is not None
    return (
        f"accuracy {accuracy.accuracy:.1%} ({accuracy.confidence:.0%} interval {accuracy.low:.1%} "
        f"to {accuracy.high:.1%}) by {accuracy.n_labeled:,} of {accuracy.n_asked:,} images asked "
        f"for, of {accuracy.n_predictions:,}"
    )
