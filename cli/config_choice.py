"""Choice of the configuration file of a run that names none: for photos, or the pipeline's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from cli.options import ROOT
from cv_factory.config.data import DataConfig
from cv_factory.config.loader import read_settings
from cv_factory.config.model import MODEL_SECTIONS
from cv_factory.config.model_section import NetworkSection
from cv_factory.errors import CVFactoryError

_SOURCES = ("folder", "manifest")
_MOST_IMAGES = 100_000
#: Pixels of the longer side up to which images are no photos, such as digits of 8x8.
_LARGEST_SMALL_SIDE = 24
_N_PROBE_IMAGES = 20
#: What a configuration for photos means, and what there is instead.
_HINTS = {
    "training_photos": "a head on features of a pretrained backbone; a network of your own "
    "instead: --set model.name=small_cnn",
    "validation_photos": "also doubtful labels and near duplicates, by features of a pretrained "
    "backbone; without: --set features=null",
}
#: Settings of ``train`` that classical models use, too.
_SHARED_TRAIN_SETTINGS = {"seed", "class_weights"}


def choose_config_file(
    pipeline: str, presets: Sequence[Path], overrides: Sequence[str]
) -> Path | None:
    """Return the file that a run without --config uses, and print which and why where it chose.

    Photos in folders or a manifest get ``configs/PIPELINE_photos.yaml``, unless a setting is for
    networks. A source that cannot be opened is left to the checks of the run.

    Args:
        pipeline: Name of the pipeline.
        presets: Files laid over the configuration.
        overrides: ``key=value`` settings laid over all files.

    Returns:
        The file; None where the pipeline has none.

    Raises:
        ConfigError: A preset or an override is no YAML.
    """
    default = ROOT / "configs" / f"{pipeline}.yaml"
    photos = default.with_name(f"{pipeline}_photos.yaml")
    if not photos.is_file():
        return default if default.is_file() else None
    overrides = [override for override in overrides if not _names_list_item(override)]
    given = read_settings(presets=presets, overrides=overrides)
    data = _parse_data(_subsection(read_settings(default), "data") | _subsection(given, "data"))
    if data is None or data.source not in _SOURCES:
        return default
    head = str(_subsection(read_settings(photos), "model").get("name"))
    # Presets lower epochs, whatever is trained: they are to try what runs without them.
    train = _subsection(read_settings(overrides=overrides), "train")
    if setting := find_network_setting({**given, "train": train}, head):
        _print_choice(default, f"{setting} is not for a head on features")
        return default
    try:
        is_photos, reason = describe_images(data)
    except CVFactoryError:
        return default
    file = photos if is_photos else default
    _print_choice(file, reason)
    return file


def find_network_setting(given: Mapping[str, Any], head: str) -> str:
    """Return the first given setting that a head on features does not have; empty for none.

    Args:
        given: Settings of presets and overrides, by section, unchecked.
        head: The model that has no name among them.
    """
    if "features" in given and given["features"] is None:
        return "features=null"
    model = _subsection(given, "model")
    name = model.get("name", head)
    if _is_network(name):
        return f"model.name={name}"
    own = MODEL_SECTIONS[head].model_fields if head in MODEL_SECTIONS else {}
    if "name" not in model and (others := model.keys() - own.keys()):
        return f"model.{min(others)}"
    families = filter(_is_network, _subsection(_subsection(given, "search"), "families"))
    if family := next(families, ""):
        return f"search.families.{family}"
    if _subsection(given, "export").get("precision", "float32") != "float32":
        return "export.precision"
    # With a backbone that is fine-tuned, they are.
    train = {} if "features" in given else _subsection(given, "train")
    return next((f"train.{key}" for key in train if key not in _SHARED_TRAIN_SETTINGS), "")


def describe_images(config: DataConfig) -> tuple[bool, str]:
    """Return whether a source holds photos for a pretrained backbone, and why.

    Most images of a sample are larger than 24 pixels, and there are no more than 100,000.

    Raises:
        CVFactoryError: The source cannot be opened.
    """
    from cv_factory.data.ingest import probe_images
    from cv_factory.data.reading import sample_positions
    from cv_factory.data.sources import open_source

    with open_source(config) as source:
        positions = sample_positions(len(source), config.limit)
        if len(positions) > _MOST_IMAGES:
            return False, f"{source.description} holds more than {_MOST_IMAGES:,} images"
        if config.height and config.width:
            sides = [max(config.height, config.width)]
        else:
            sample = positions[sample_positions(len(positions), _N_PROBE_IMAGES)]
            probes = probe_images(source, sample)
            sides = [max(probe[:2]) for probe in probes if isinstance(probe, tuple)]
        is_large = 2 * sum(side > _LARGEST_SMALL_SIDE for side in sides) > len(sides)
        size = "larger than" if is_large else "of at most"
        return is_large, (
            f"{source.description} holds {len(positions):,} images {size} "
            f"{_LARGEST_SMALL_SIDE} pixels"
        )


def _names_list_item(override: str) -> bool:
    """Return whether a setting is for an item of a list, which the file has: none is asked here."""
    key = override.partition("=")[0]
    return any(part.isdigit() for part in key.split("."))


def _print_choice(file: Path, reason: str) -> None:
    hint = _HINTS.get(file.stem)
    end = f": {hint}" if hint else ""
    click.echo(f"Configuration: {file.relative_to(ROOT)}, since {reason}{end}.", err=True)


def _parse_data(values: dict[str, Any]) -> DataConfig | None:
    """Return the section ``data``; None where it is wrong, as the reader of all sections says."""
    try:
        return DataConfig.model_validate(values)
    except ValidationError:
        return None


def _subsection(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section of unchecked settings; empty where there is none, or something else."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _is_network(name: object) -> bool:
    section = MODEL_SECTIONS.get(str(name))
    return section is not None and issubclass(section, NetworkSection)
