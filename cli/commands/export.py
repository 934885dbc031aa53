"""``run.py export``: write the bundle of a version, or its predictor alone, to a directory."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from cli.options import MODEL_OPTION, STACK_OPTION, RunOptions, validate_output_directory
from cli.session import make_directory, open_registry

if TYPE_CHECKING:
    from cv_factory.inference.predictor import Predictor


@click.command("export")
@click.argument("version", type=click.IntRange(min=1))
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    callback=validate_output_directory,
    help="New or empty directory.",
)
@click.option(
    "--onnx", is_flag=True, help="Write the ONNX graph, its contract and golden samples alone."
)
@MODEL_OPTION
@STACK_OPTION
def command(
    version: int, directory: Path, onnx: bool, model_name: str | None, stack: str | None
) -> int:
    """Write the bundle of a VERSION: what a service runs.

    The version must have passed its gates. The serving settings are those of
    configs/deployment.yaml; they stand in serving.json.
    """
    registry = open_registry(model_name, stack, beside_transitions=True)
    from cli.dispatch import read_config
    from cv_factory.config.deployment import DeploymentPipelineConfig
    from registry.deployments import build_bundle, bundle_metadata
    from registry.versions import load_predictor

    registered = registry.get_version(version)
    predictor = load_predictor(registered)
    title = f"{registry.model_name} version {version}"
    if onnx:
        registry.require_fit(version, predictor.fingerprint)
        with make_directory(directory):
            predictor.save(directory)
        click.echo(describe_graph(predictor, title, directory))
        return 0
    config, _ = read_config(RunOptions(pipeline="deployment"))
    assert isinstance(config, DeploymentPipelineConfig)
    bundle = build_bundle(predictor, config.serving, bundle_metadata(registered))
    with make_directory(directory):
        bundle.save(directory)
    click.echo(
        f"Bundle of {title} written to {directory}.\n"
        f"Serve:   python -m cv_factory.serving {quote(str(directory))}\n"
        f"Predict: python run.py predict IMAGE --bundle {quote(str(directory))}"
    )
    return 0


def describe_graph(predictor: "Predictor", title: str, directory: Path) -> str:
    """Return where an exported graph is, its inputs and its outputs."""
    contract = predictor.contract
    shape = ", ".join(map(str, contract.input_shape))
    return (
        f"ONNX graph of {title} written to {directory}/predictor.onnx.\n"
        f"Input:   images, uint8 (N, {shape})\n"
        f"Outputs: {', '.join(contract.output_names)}; the classes stand in contract.json"
    )
