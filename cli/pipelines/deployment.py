"""Runs the deployment pipeline and prints where the model is served."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig, step_names
from cli.session import activate_stack, current_user, open_model
from cv_factory.config.deployment import (
    DeployedModelConfig,
    DeploymentPipelineConfig,
    EndpointConfig,
)
from cv_factory.config.rollout import RolloutConfig
from cv_factory.deployment.deployment import Deployment

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

    from registry.model_registry import ModelRegistry


def run(config: DeploymentPipelineConfig, zenml: ZenMLConfig, options: RunOptions) -> int:
    """Deploy the next version, unless it is served already; return the exit code.

    Raises:
        CVFactoryError: There is no such version, it lacks an approval, a step failed, or another
            process is deploying the model; the previous version keeps serving.
    """
    activate_stack(options.stack)
    from registry.deployments import active_deployer, lock_deployments

    registry = open_model(config.model.name)
    active_deployer()
    with nullcontext() if options.dry_run else lock_deployments(registry.model_name):
        if not options.dry_run:
            registry.record_outside_changes()
        return deploy_next(config, zenml, registry, options)


def deploy_next(
    config: DeploymentPipelineConfig,
    zenml: ZenMLConfig,
    registry: "ModelRegistry",
    options: RunOptions,
    why: str = "deployed",
) -> int:
    """Deploy the next version as configured, unless it is; the caller holds ``lock_deployments``.

    Raises:
        CVFactoryError: As ``run``.
    """
    from registry.deployments import active_deployer, next_version, served_url
    from registry.rollouts import require_no_rollout

    require_no_rollout(registry)
    version = next_version(registry, config.model.version)
    title = f"{registry.model_name} version {version.number} ({version.stage})"
    url = served_url(version, config.endpoint) if version.stage == "production" else None
    if url is not None:
        click.echo(f"Nothing to do: {title} is served at {url}.")
        return 0
    rollout = _plan_rollout(config, version)
    if rollout is not None:
        config = config.model_copy(update={"endpoint": _first_step(config.endpoint, rollout)})
    config = config.model_copy(update={"rollout": None})
    if options.dry_run:
        active_deployer().check_settings(registry.model_name, config.endpoint)
        click.echo(f"Would run {', '.join(step_names('deployment'))} with {title}.")
        click.echo("Nothing was changed (--dry-run).")
        return 0
    return deploy_version(
        config,
        zenml,
        version,
        why,
        is_rollback=False,
        debug=options.debug,
        rollout=rollout,
    )


def _plan_rollout(
    config: DeploymentPipelineConfig, version: "ModelVersionResponse"
) -> RolloutConfig | None:
    """Return the rollout that a deployment begins; None where there is nothing to compare with.

    Raises:
        StackError: The endpoints of the active stack cannot compare versions.
    """
    from registry.rollouts import can_compare

    if config.rollout is None:
        return None
    if version.stage == "production" or not can_compare(version.model.name):
        click.echo("No rollout: no other version is served that this one could be compared with.")
        return None
    return config.rollout


def _first_step(endpoint: EndpointConfig, rollout: RolloutConfig) -> EndpointConfig:
    first = rollout.steps[0]
    share = {"shadow_share": 1.0} if first == "shadow" else {"canary_share": first}
    return endpoint.model_copy(update=share)


def deploy_version(
    config: DeploymentPipelineConfig,
    zenml: ZenMLConfig,
    version: "ModelVersionResponse",
    why: str,
    *,
    is_rollback: bool,
    debug: bool,
    who: str | None = None,
    rollout: RolloutConfig | None = None,
) -> int:
    """Run the pipeline for one version, print the deployment, and what disagrees after it.

    Raises:
        CVFactoryError: A step failed; the previous version keeps serving.
    """
    from cli.commands.status import describe_problems
    from cli.execution import run_to_end
    from pipelines.deployment import deployment
    from registry.artifact_loader import load_output
    from registry.deployments import active_deployer, bundle_metadata
    from registry.status import load_status
    from registry.versions import PREDICTOR, linked_artifact

    active_deployer().check_settings(version.model.name, config.endpoint)
    arguments = (
        config,
        str(linked_artifact(version, PREDICTOR).id),
        bundle_metadata(version),
        who or current_user(),
        why,
        is_rollback,
    )
    finished_run = run_to_end(deployment, zenml, *arguments, debug=debug)
    if finished_run is not None:
        last_step = "promote" if config.endpoint.arm == "stable" else "smoke_test"
        deployed = load_output(finished_run, last_step, Deployment)
        if rollout is None:
            click.echo(describe_deployment(deployed, next_command(deployed)))
        else:
            from cli.rollouts import start_rollout

            start_rollout(deployed, rollout, who, why)
            command = f"python run.py rollout status --model {deployed.model_name}"
            click.echo(describe_deployment(deployed, command))
        # Such as an earlier version that another stack goes on serving.
        for line in describe_problems(load_status(version.model.name)):
            click.echo(line)
    return 0


def change_production(
    registry: "ModelRegistry", number: int, who: str | None, why: str, *, is_rollback: bool
) -> int:
    """Put a version into production and, where the model is deployed, deploy it in the same way.

    The serving settings and the port are those of the present deployment. The caller holds
    ``registry.deployments.lock_deployments``.

    Raises:
        CVFactoryError: Another stack alone serves the model, or a step failed: the present version
            keeps serving.
    """
    from registry.deployments import deployed_bundle, require_reachable_services, served_url

    name = registry.model_name
    bundle, version = deployed_bundle(name), registry.get_version(number)
    if bundle is None:
        require_reachable_services(name)
        if is_rollback:
            result = registry.rollback(who, why, number)
        else:
            result = registry.promote(number, who, why)
        click.echo(str(result))
        click.echo(f"{name} is not deployed.\nNext: {_deploy_command(name, number)}")
        return 0
    url = served_url(version, EndpointConfig()) if version.stage == "production" else None
    if url is not None:
        click.echo(f"Nothing to do: {name} version {number} (production) is served at {url}.")
        return 0
    config = DeploymentPipelineConfig(
        model=DeployedModelConfig(name=name, version=number), serving=bundle.serving
    )
    return deploy_version(
        config, ZenMLConfig(), version, why, is_rollback=is_rollback, debug=False, who=who
    )


def next_command(deployment: Deployment) -> str:
    """Return what is usual next: the status, or the two ways in which a canary or shadow ends."""
    name, version = deployment.model_name, deployment.version
    if deployment.arm == "stable":
        return f"python run.py status --model {name}"
    return (
        f"python run.py promote {version} --model {name}\n"
        f"or:      python run.py withdraw {version} --reason WHY --model {name}"
    )


def _deploy_command(name: str, version: int) -> str:
    """Return the command that deploys a version."""
    return f"python run.py --pipeline deployment --model {name} --set model.version={version}"


def describe_deployment(deployment: Deployment, command: str) -> str:
    """Return the served version, its verification, and commands to try it."""
    d = deployment
    given = {"stable": "", "canary": f", {d.share:.0%}", "shadow": f", copies of {d.share:.0%}"}
    share = f"{given[d.arm]} of the requests" if given[d.arm] else ""
    lines = [f"\nServed: {d.model_name} version {d.version} ({d.stage}{share}) at {d.url}"]
    if d.verification is not None:
        lines.append(
            f"Verified: {d.verification.n_samples} golden samples, probabilities within "
            f"{d.verification.largest_difference:.1e}"
        )
    lines.append(f"Images:  python run.py sample {d.version} --model {d.model_name}")
    if d.arm == "shadow":
        lines.append("Answers: none to clients; in its prediction log and in the model's /metrics")
    elif d.url.startswith("http"):
        curl = "curl --cacert CERTIFICATE" if d.url.startswith("https") else "curl"
        lines.append(
            f"Try it:  {curl} --data-binary @IMAGE -H 'Content-Type: image/png' {d.url}/predict\n"
            f"Open:    {d.url}/"
        )
    else:
        lines.append(f"Try it:  python run.py predict --url {d.url} IMAGE")
    lines.append(
        f"Service: zenml model-deployer models describe {d.service_id}\nNext:    {command}"
    )
    return "\n".join(lines)
