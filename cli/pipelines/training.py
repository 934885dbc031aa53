"""Runs the training pipeline and prints its summary."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.preparation import (
    Checks,
    collect_lineage,
    describe_lineage,
    fingerprint_source,
    resolve_reference,
)
from cli.session import activate_stack
from cv_factory.config.model import ModelConfig
from cv_factory.config.register import RegisterConfig
from cv_factory.config.search import build_trial_config
from cv_factory.config.train import TrainConfig
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.errors import ConfigError, TrainingError
from cv_factory.features.backbones import check_backbone
from cv_factory.models import check_available
from cv_factory.transforms.embedding import check_installed

if TYPE_CHECKING:
    from cv_factory.data.sources import ImageSource
    from cv_factory.evaluation.registration import Registration


def run(config: TrainingPipelineConfig, zenml: ZenMLConfig, options: RunOptions) -> int:
    """Train, or print the plan, and return the exit code: 3 if a gate failed.

    Raises:
        CVFactoryError: A check, a step or a gate refused.
    """
    config, source_fingerprint, stack = _check(config, zenml, options)
    from cli.execution import run_to_end
    from cli.run_plan import print_plan
    from cli.summary import print_summary
    from pipelines.training import training

    lineage = collect_lineage(config, stack)
    arguments = (config, source_fingerprint, lineage)
    if message := _describe_inapplicable_gates(config):
        click.echo(message, err=True)
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


def _check(
    config: TrainingPipelineConfig, zenml: ZenMLConfig, options: RunOptions
) -> tuple[TrainingPipelineConfig, str, str]:
    """Check all that a step would refuse, and return what the run starts with.

    Returns:
        The configuration with its reference resolved, the source's fingerprint, the stack's name.

    Raises:
        CVFactoryError: Names everything that does not fit source, machine, stack or registry.
    """
    checks = Checks()
    for section in _possible_models(config):
        checks.run(partial(check_available, section))
    if config.features is not None:
        checks.run(partial(check_backbone, config.features.backbone))
    if config.transform.umap is not None:
        checks.run(check_installed)
    source = checks.run(lambda: fingerprint_source(config.data, partial(_check_source, config)))
    stack = checks.run(lambda: activate_stack(options.stack))
    validation = None
    if stack is not None:
        validation = checks.run(lambda: resolve_reference(config.validation))
        checks.run(lambda: _check_device(config.train, zenml))
        checks.run(lambda: _check_registration(config.registration))
    checks.finish()
    assert source is not None
    assert stack is not None
    return config.model_copy(update={"validation": validation}), source, stack


def _possible_models(config: TrainingPipelineConfig) -> list[ModelConfig]:
    """Return the model's section, or one of each family of the search."""
    if config.search is None:
        return [config.model]
    return [
        build_trial_config(
            family,
            {key: space.ends()[0] for key, space in spaces.items()},
            config.model,
            config.train,
        )[0]
        for family, spaces in config.search.families.items()
    ]


def _check_source(config: TrainingPipelineConfig, source: "ImageSource") -> None:
    """Refuse settings that the images rule out.

    Raises:
        ConfigError: Names all of them.
    """
    from cv_factory.training.data_limits import find_source_problems

    if problems := find_source_problems(config, source):
        raise ConfigError("\n".join(problems))


def _check_device(config: TrainConfig, zenml: ZenMLConfig) -> None:
    """Refuse a device that the step does not ask for, or that this machine lacks if it trains.

    The defaults fit every machine: then PyTorch, which takes seconds to import, is not asked.

    Raises:
        ConfigError: There is no such GPU, precision or compiler.
    """
    gpus = zenml.resources["train"].gpu_count if "train" in zenml.resources else None
    if gpus is not None and config.device == ("cpu" if gpus else "cuda"):
        raise ConfigError(
            f"train.device is {config.device}, but zenml.resources.train.gpu_count is {gpus}: "
            "change one of them."
        )
    from zenml.client import Client

    operator = Client().active_stack.step_operator
    is_here = getattr(operator and operator.config, "is_local", False)
    is_default = (
        config.precision in ("auto", "fp32") and config.device != "cuda" and not config.compile
    )
    if not is_here or is_default:
        return
    from cv_factory.training.device import count_processes, select_device

    try:
        count_processes(config, select_device(config))
    except TrainingError as error:
        raise ConfigError(str(error)) from None


def _check_registration(config: RegisterConfig) -> None:
    """Refuse approvers who are unknown, and a deployment that no model deployer would serve.

    Raises:
        CVFactoryError: An approver is unknown, or the stack has no model deployer of ours.
    """
    from registry.approvers import check_approvers
    from registry.deployments import active_deployer

    if warning := check_approvers(config):
        click.echo(f"Warning: {warning}", err=True)
    if config.deploy_after is not None:
        active_deployer()


def _describe_inapplicable_gates(config: TrainingPipelineConfig) -> str:
    """Return which gates are for images of another source; empty if all apply."""
    from cv_factory.evaluation.gates import describe_gate

    others = [gate for gate in config.gates if gate not in config.applicable_gates]
    if not others:
        return ""
    words = "; ".join(f"{describe_gate(gate)} (for {gate.source})" for gate in others)
    return (
        f"Gates that do not apply to source {config.data.source}: {words}. Give your own in the "
        "section 'gates': docs/evaluation.md."
    )


def _describe_search(config: TrainingPipelineConfig) -> str:
    if config.search is None:
        return "Search: off (the configuration has no section 'search')"
    families = ", ".join(config.search.families)
    return f"Search: on, {config.search.trials} trials among {families}"
