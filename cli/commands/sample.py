"""``run.py sample``: write test images of a version as files, to try a predictor with."""

from pathlib import Path

import click

from cli.options import MODEL_OPTION, STACK_OPTION, validate_output_directory
from cli.session import make_directory, open_registry


@click.command("sample")
@click.argument("version", required=False, type=click.IntRange(min=1))
@click.option(
    "--to",
    "directory",
    default="samples",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    callback=validate_output_directory,
    help="New or empty directory; gets CLASS/NUMBER.png.",
)
@click.option(
    "--per-class", default=1, show_default=True, type=click.IntRange(min=1), help="Images a class."
)
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int | None, directory: Path, per_class: int, model_name: str | None, stack: str | None
) -> int:
    """Write test images of a VERSION as PNG files.

    Without VERSION those of the newest. They are as they were ingested, in the model's size. The
    source "folder" reads the directory.
    """
    registry = open_registry(model_name, stack, beside_transitions=True)
    from cv_factory.data.dataset import ImageDataset
    from cv_factory.data.samples import write_samples
    from cv_factory.data.split import Split
    from registry.versions import load_linked_artifact

    registered = registry.get_version(version or max(registry.stages(), default=1))
    dataset = load_linked_artifact(registered, "dataset", ImageDataset)
    split = load_linked_artifact(registered, "split", Split)
    with make_directory(directory):
        files = write_samples(dataset, split.test, directory, per_class)
    such_as = f", such as {files[-1]}" if files else ""
    click.echo(
        f"{len(files)} test images of {registry.model_name} version {registered.number} written to "
        f"{directory}{such_as}."
    )
    return 0
