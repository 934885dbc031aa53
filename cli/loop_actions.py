"""Actions of the loop: the pipelines and commands that a person would run."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from cli.dispatch import read_config
from cli.options import ROOT, RunOptions
from cv_factory.config.deployment import DeployedModelConfig, DeploymentPipelineConfig
from cv_factory.config.loop import LoopConfig
from cv_factory.config.rollout import RolloutConfig
from cv_factory.errors import ConfigError
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.decisions import LabelCounts, Outcome

if TYPE_CHECKING:
    from registry.model_registry import ModelRegistry


class PipelineActions:
    """Actions of one model's loop; they meet the protocol ``registry.loop.LoopActions``."""

    def __init__(self, registry: "ModelRegistry", config: LoopConfig, options: RunOptions) -> None:
        """Take the options of a pipeline run, such as the stack, for every pipeline."""
        self._registry, self._config = registry, config
        self._options = replace(options, model_name=registry.model_name)

    def count_labels(self, since: datetime) -> LabelCounts:
        """Count the labels that may train, those given after a time as new."""
        from registry.training_data import find_training_labels

        blind_only = self._config.retrain.blind_only
        try:
            labels = find_training_labels(self._registry.model_name, blind_only=blind_only)
        except ConfigError as error:
            click.echo(f"No labels: {error}", err=True)
            return LabelCounts(0, 0)
        return LabelCounts(labels.count_since(since), labels.n_test)

    def monitor(self) -> None:
        """Run the monitoring pipeline."""
        self._run("monitoring", self._config.monitoring.config)

    def train(self, run_name: str) -> None:
        """Run the training pipeline on its images and those from the field that may train."""
        from cv_factory.monitoring.training_data import add_images
        from registry.training_data import find_training_labels, write_training_data

        name, settings = self._registry.model_name, self._config.retrain
        labels = find_training_labels(name, blind_only=settings.blind_only)
        click.echo(
            f"Retraining {name} with {labels.n_train} images from the field; {labels.n_test} are "
            f"for its test, {labels.n_untrusted} labels may not train, {labels.n_without_image} "
            "have no image."
        )
        manifest = write_training_data(name, labels)
        # What passes its gates is rolled out, and not deployed at once.
        overrides = (f"zenml.run_name={run_name}", "register.deploy_after=null")
        options = self._pipeline_options("training", settings.config, overrides)
        config: Any
        config, zenml = read_config(options)
        training = import_module("cli.pipelines.training")
        training.run(add_images(config, manifest, settings.min_test_images), zenml, options)

    def lock(self) -> AbstractContextManager[None]:
        """Return the lock with which this process alone deploys the model."""
        from registry.deployments import lock_deployments

        return lock_deployments(self._registry.model_name)

    def roll_back(self, why: str) -> None:
        """Put the version before the present one into production, and deploy it."""
        from cli.pipelines.deployment import change_production

        self._registry.record_outside_changes()
        target = self._registry.rollback_target()
        change_production(self._registry, target, None, why, is_rollback=True)

    def start_rollout(self, version: int, why: str) -> None:
        """Deploy a version as the first step of its rollout, set as the present service is.

        Raises:
            TransitionRefusedError: No other version is served.
        """
        from cli.pipelines.deployment import deploy_next
        from registry.deployments import deployed_bundle
        from registry.permissions import TransitionRefusedError
        from registry.rollouts import can_compare

        name = self._registry.model_name
        options = self._pipeline_options("deployment", self._config.rollout.config)
        settings: Any
        settings, zenml = read_config(options)
        bundle = deployed_bundle(name)
        if bundle is None or not can_compare(name):
            raise TransitionRefusedError(f"{name} is not deployed: nothing can be rolled out.")
        config = DeploymentPipelineConfig(
            model=DeployedModelConfig(name=name, version=version),
            serving=bundle.serving,
            rollout=settings.rollout or RolloutConfig(),
        )
        self._registry.record_outside_changes()
        deploy_next(config, zenml, self._registry, options, why)

    def continue_rollout(self) -> None:
        """Look at the evidence of the rollout, and do what follows from it."""
        from cli.rollouts import step_rollout

        decision = step_rollout(self._registry)
        if decision is not None:
            click.echo(f"Rollout: {decision.action.replace('_', ' ')}, {decision.reason}")

    def send(self, alerts: Sequence[Alert]) -> None:
        """Send alerts through the stack's alerter."""
        from registry.alerts import send_alerts

        send_alerts(alerts, self._registry.model_name)

    def find_run_outcome(self, run_name: str) -> Outcome:
        """Return what became of a run of which the log tells no registration."""
        from registry.loop_state import find_run_outcome

        return find_run_outcome(run_name)

    def _run(self, pipeline: str, file: str, overrides: tuple[str, ...] = ()) -> None:
        options = self._pipeline_options(pipeline, file, overrides)
        config, zenml = read_config(options)
        import_module(f"cli.pipelines.{pipeline}").run(config, zenml, options)

    def _pipeline_options(
        self, pipeline: str, file: str, overrides: tuple[str, ...] = ()
    ) -> RunOptions:
        return replace(self._options, pipeline=pipeline, config=ROOT / file, overrides=overrides)
