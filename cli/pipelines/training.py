"""Runs the training pipeline and prints its summary."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.preparation import (
    collect_lineage,
    describe_lineage,
    fingerprint_source,
    resolve_reference,
)
from cli.session import activate_stack
from cv_factory.config.training import TrainingPipelineConfig

if TYPE_CHECKING:
    from cv_factory.evaluation.registration import Registration


def run(config: TrainingPipelineConfig, zenml: ZenMLConfig, options: RunOptions) -> int:
    """Train, or print the plan, and return the exit code: 3 if a gate failed.

    Raises:
        CVFactoryError: A check, a step or a gate refused.
    """
    _check_extras(config)
    source_fingerprint = fingerprint_source(config.data)
    stack = activate_stack(options.stack)
    if config.registration.deploy_after is not None:
        from registry.deployments import active_deployer

        active_deployer()  # which refuses before the training, not after it
    config = config.model_copy(update={"validation": resolve_reference(config.validation)})
    from cli.execution import run_to_end
    from cli.run_plan import print_plan
    from cli.summary import print_summary
    from pipelines.training import training

    lineage = collect_lineage(config, stack)
    arguments = (config, source_fingerprint, lineage)
    if options.dry_run:
        details = (describe_lineage(lineage), _describe_search(config))
        print_plan(training, zenml, stack, *arguments, details=details)
        return 0
    finished_run = run_to_end(training, zenml, *arguments, debug=options.debug)
    if finished_run is None:
        if config.registration.deploy_after is not None:
            click.echo(
                "register.deploy_after: not deployed, since nothing waits for the run's end."
            )
        return 0
    registration = print_summary(finished_run)
    if not registration.gates_passed:
        return 3
    if config.registration.deploy_after == registration.stage:
        return _deploy(registration, options)
    return 0


def _deploy(registration: "Registration", options: RunOptions) -> int:
    """Deploy the version that a run has staged, by a run of its own, as ``configs`` says.

    One that waits for its approval is not deployed.

    Raises:
        CVFactoryError: The deployment failed; what served before still serves.
    """
    from cli.dispatch import read_config
    from cli.pipelines import deployment
    from registry.model_registry import ModelRegistry

    name, number = registration.model_name, registration.version
    registry = ModelRegistry(name)
    if registry.lacks_approval(registry.get_version(number)):
        click.echo("register.deploy_after: not deployed, since the version waits for its approval.")
        return 0
    deployment_options = replace(
        options,
        pipeline="deployment",
        config=None,
        presets=(),
        overrides=(f"model.version={number}",),
        model_name=name,
    )
    config: Any
    config, zenml = read_config(deployment_options)
    return deployment.run(config, zenml, deployment_options)


def _check_extras(config: TrainingPipelineConfig) -> None:
    """Refuse a model or a plot whose packages are not installed."""
    from cv_factory.models import check_available
    from cv_factory.transforms.embedding import check_installed

    check_available(config.model)
    if config.transform.umap is not None:
        check_installed()


def _describe_search(config: TrainingPipelineConfig) -> str:
    if config.search is None:
        return "Search: off (the configuration has no section 'search')"
    families = ", ".join(config.search.families)
    return f"Search: on, {config.search.trials} trials among {families}"
