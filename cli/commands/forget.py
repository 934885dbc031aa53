"""``run.py forget``: erase what monitoring stores of images."""

import re
from pathlib import Path

import click

from cli.options import BY_OPTION, MODEL_OPTION, STACK_OPTION, reason_option
from cli.session import open_registry

_HMAC = re.compile(r"[0-9a-f]{64}")


def _check_hmacs(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    for text in value:
        if not _HMAC.fullmatch(text):
            raise click.BadParameter(
                f"{text!r} is no HMAC: 64 hexadecimal digits, image_hmac in the prediction log"
            )
    return value


@click.command("forget")
@click.argument("hmacs", metavar="[HMAC]...", nargs=-1, callback=_check_hmacs)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An image in place of its HMAC; may be repeated.",
)
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(min=0.0),
    metavar="DAYS",
    help="All predictions that are older, with their labels and images.",
)
@reason_option("erasure")
@BY_OPTION
@MODEL_OPTION
@STACK_OPTION
def command(
    hmacs: tuple[str, ...],
    images: tuple[Path, ...],
    days: float | None,
    why: str,
    who: str | None,
    model_name: str | None,
    stack: str | None,
) -> int:
    """Erase what monitoring stores of images.

    HMAC is the image_hmac of the prediction log. Erased are predictions, labels, kept images and
    their copies for training; datasets that versions were trained on stay as they are.
    """
    if not hmacs and not images and days is None:
        raise click.UsageError("Name an HMAC, --image FILE or --older-than DAYS.")
    registry = open_registry(model_name, stack)
    from registry.forgetting import forget, hash_image

    name = registry.model_name
    hashed = [hash_image(name, image.read_bytes()) for image in images]
    forgotten = forget(registry, frozenset(hmacs).union(*hashed), days, who, why)
    click.echo(
        f"Erased of {name}: {forgotten.n_predictions:,} predictions, {forgotten.n_labels:,} "
        f"labels, {forgotten.n_images:,} kept images, {forgotten.n_training_images:,} images for "
        "training."
    )
    return 0
