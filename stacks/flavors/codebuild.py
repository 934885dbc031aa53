"""The image builder flavor ``codebuild``: ZenML's own, whose failures show the end of the log.

ZenML's names an address in the console at which somebody who may sign in there finds the log.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from zenml.integrations.aws.flavors import AWSImageBuilderFlavor
from zenml.integrations.aws.image_builders import AWSImageBuilder

from cv_factory.errors import CVFactoryError

if TYPE_CHECKING:
    from zenml.config.docker_settings import DockerBuildOptions
    from zenml.container_registries import BaseContainerRegistry
    from zenml.image_builders import BuildContext

_LINES_SHOWN = 30
_BEFORE = "before-parameter-build.codebuild.StartBuild"
_AFTER = "after-call.codebuild.StartBuild"


class ImageBuildError(CVFactoryError):
    """An image could not be built."""


class CodeBuildFlavor(AWSImageBuilderFlavor):
    """Registers the flavor."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "codebuild"

    @property
    def implementation_class(self) -> "type[CodeBuild]":
        """Class that does the work."""
        return CodeBuild


class CodeBuild(AWSImageBuilder):
    """Builds images with AWS CodeBuild."""

    def build(
        self,
        image_name: str,
        build_context: "BuildContext",
        docker_build_options: "DockerBuildOptions | None" = None,
        container_registry: "BaseContainerRegistry | None" = None,
    ) -> str:
        """Build and push an image; see ZenML.

        Raises:
            ImageBuildError: The build failed; the message holds the end of its log.
            AccessError: AWS refuses it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        from cv_factory.deployment.sagemaker.aws_errors import refusal

        started: list[str] = []
        events = self.code_build_client.meta.events
        hooks = {_BEFORE: _run_privileged, _AFTER: partial(_remember, started)}
        for event, hook in hooks.items():
            events.register(event, hook)
        try:
            return super().build(
                image_name, build_context, docker_build_options, container_registry
            )
        except (ClientError, BotoCoreError) as error:
            raise refusal(error, f"CodeBuild does not build {image_name}") from error
        except RuntimeError as error:
            if not started:
                raise
            raise ImageBuildError(f"{error}\n{self._log_end(started[-1])}") from error
        finally:
            for event, hook in hooks.items():
                events.unregister(event, hook)

    def _log_end(self, build_id: str) -> str:
        """Return the last lines of a build's log, or why they cannot be had."""
        from botocore.exceptions import BotoCoreError, ClientError

        build = self.code_build_client.batch_get_builds(ids=[build_id])["builds"][0]
        place: dict[str, Any] = build.get("logs", {})
        group, stream = place.get("groupName"), place.get("streamName")
        if not group or not stream:
            return "The build ended before it wrote a log."
        connector = self.get_connector()
        session = connector.connect() if connector else _default_session()
        try:
            events = session.client("logs").get_log_events(
                logGroupName=group, logStreamName=stream, limit=_LINES_SHOWN
            )["events"]
        except (ClientError, BotoCoreError) as error:
            return f"Its log ({group}, {stream}) cannot be read: {error}"
        lines = [event["message"].rstrip() for event in events]
        return "\n".join(["The end of its log:", *(f"  {line}" for line in lines)])


def _run_privileged(params: dict[str, Any], **_: Any) -> None:
    """Ask for what a Docker daemon needs: ZenML 0.98 asks for the opposite."""
    params["privilegedModeOverride"] = True


def _remember(started: list[str], parsed: dict[str, Any], **_: Any) -> None:
    """Keep the id of a build, which ZenML's error does not name."""
    if "build" in parsed:
        started.append(parsed["build"]["id"])


def _default_session() -> Any:
    import boto3

    return boto3.Session()
