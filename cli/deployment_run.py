"""Runs the deployment pipeline on the active stack and prints where the model answers."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from cli.execution import run_to_end
from cli.pipeline_config import ZenMLConfig, step_names
from cli.session import open_model, user
from cv_factory.config.deployment import (
    DeployedModelConfig,
    DeploymentPipelineConfig,
    EndpointConfig,
)
from cv_factory.deployment.deployment import Deployment

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

    from cv_factory.serving.bundle import Bundle
    from registry.model_registry import ModelRegistry


def run_deployment(
    config: DeploymentPipelineConfig, zenml: ZenMLConfig, *, dry_run: bool, debug: bool
) -> int:
    """Deploy the version that is next, unless it is served already; return the exit code.

    Raises:
        CVFactoryError: There is none, it lacks an approval, a step failed, or the model is being
            deployed by somebody else; what was served before still is.
    """
    from registry.deployments import active_deployer, lock_deployments

    registry = open_model(config.model.name)
    active_deployer()
    with nullcontext() if dry_run else lock_deployments(registry.model_name):
        return _deploy_next(config, zenml, registry, dry_run=dry_run, debug=debug)


def _deploy_next(
    config: DeploymentPipelineConfig,
    zenml: ZenMLConfig,
    registry: "ModelRegistry",
    *,
    dry_run: bool,
    debug: bool,
) -> int:
    from registry.deployments import next_version, served_url

    version = next_version(registry, config.model.version)
    what = f"{registry.model_name} version {version.number} ({version.stage})"
    url = served_url(version, config.endpoint.port) if version.stage == "production" else None
    if url is not None:
        click.echo(f"Nothing to do: {what} is served at {url}.")
        return 0
    if dry_run:
        click.echo(f"Would run {', '.join(step_names('deployment'))} with {what}.")
        click.echo("Nothing was changed (--dry-run).")
        return 0
    return deploy_version(config, zenml, version, "deployed", is_rollback=False, debug=debug)


def deploy_version(
    config: DeploymentPipelineConfig,
    zenml: ZenMLConfig,
    version: "ModelVersionResponse",
    why: str,
    *,
    is_rollback: bool,
    debug: bool,
    who: str | None = None,
) -> int:
    """Run the pipeline for one version, print what came of it and return the exit code.

    Raises:
        CVFactoryError: A step failed; what was served before still is.
    """
    from pipelines.deployment import deployment
    from registry.deployments import bundle_facts
    from registry.versions import PREDICTOR, linked_artifact

    arguments = (
        config,
        str(linked_artifact(version, PREDICTOR).id),
        bundle_facts(version),
        who or user(),
        why,
        is_rollback,
    )
    run = run_to_end(deployment, zenml, *arguments, debug=debug)
    if run is not None:
        last = "smoke_test" if config.endpoint.canary_share else "promote"
        (outputs,) = run.steps[last].outputs.values()
        _print(outputs[0].load())
    return 0


def roll_back(
    registry: "ModelRegistry", number: int, deployed: "Bundle", who: str, why: str
) -> int:
    """Deploy an earlier production version in place of the present one, served in the same way.

    To be called within ``registry.deployments.lock_deployments``.

    Raises:
        CVFactoryError: A step failed; the present version still serves.
    """
    from registry.deployments import deployed_port
    from registry.versions import get_version

    name = registry.model_name
    config = DeploymentPipelineConfig(
        model=DeployedModelConfig(name=name, version=number),
        serving=deployed.serving,
        endpoint=EndpointConfig(port=deployed_port(name)),
    )
    version = get_version(name, number)
    return deploy_version(
        config, ZenMLConfig(), version, why, is_rollback=True, debug=False, who=who
    )


def _print(found: Deployment) -> None:
    share = "" if found.share == 1.0 else f", {found.share:.0%} of the requests"
    click.echo(
        f"\nServed: {found.model_name} version {found.version} ({found.stage}{share}) at "
        f"{found.url}"
    )
    if found.verification is not None:
        click.echo(
            f"Verified: {found.verification.n_samples} golden samples, probabilities within "
            f"{found.verification.largest_difference:.1e}"
        )
    if found.url.startswith("http"):
        click.echo(
            "Try it:  curl --data-binary @IMAGE -H 'Content-Type: image/png' "
            f"{found.url}/predict\n"
            f"Look at: {found.url}/"
        )
    else:
        click.echo(f"Try it:  python run.py predict --url {found.url} IMAGE")
    click.echo("Next:    zenml model-deployer models list, python run.py rollback")
