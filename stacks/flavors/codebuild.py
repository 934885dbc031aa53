"""The image builder flavor ``codebuild``: ZenML's, with the end of the log in its errors.

ZenML's own error only links to the AWS console.
"""

from typing import TYPE_CHECKING, Any

from zenml.integrations.aws.flavors import AWSImageBuilderFlavor
from zenml.integrations.aws.image_builders import AWSImageBuilder

from cv_factory.errors import CVFactoryError
from stacks.compat.zenml_codebuild import privileged_builds

if TYPE_CHECKING:
    from zenml.config.docker_settings import DockerBuildOptions
    from zenml.container_registries import BaseContainerRegistry
    from zenml.image_builders import BuildContext

_LINES_SHOWN = 30


class ImageBuildError(CVFactoryError):
    """An image could not be built."""


class CodeBuildFlavor(AWSImageBuilderFlavor):
    """Flavor ``codebuild``."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "codebuild"

    @property
    def implementation_class(self) -> "type[CodeBuild]":
        """Implementation class."""
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
            AwsError: AWS refuses it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        from cv_factory.deployment.sagemaker.aws_errors import aws_error

        with privileged_builds(self.code_build_client) as build_ids:
            try:
                return super().build(
                    image_name, build_context, docker_build_options, container_registry
                )
            except (ClientError, BotoCoreError) as error:
                raise aws_error(error, f"CodeBuild does not build {image_name}") from error
            except RuntimeError as error:
                if not build_ids:
                    raise
                raise ImageBuildError(f"{error}\n{self._log_tail(build_ids[-1])}") from error

    def _log_tail(self, build_id: str) -> str:
        """Return the last lines of a build's log, or why they cannot be read."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        build = self.code_build_client.batch_get_builds(ids=[build_id])["builds"][0]
        location: dict[str, Any] = build.get("logs", {})
        group, stream = location.get("groupName"), location.get("streamName")
        if not group or not stream:
            return "The build ended before it wrote a log."
        connector = self.get_connector()
        session = connector.connect() if connector else boto3.Session()
        try:
            events = session.client("logs").get_log_events(
                logGroupName=group, logStreamName=stream, limit=_LINES_SHOWN
            )["events"]
        except (ClientError, BotoCoreError) as error:
            return f"Its log ({group}, {stream}) cannot be read: {error}"
        lines = [event["message"].rstrip() for event in events]
        return "\n".join(["The end of its log:", *(f"  {line}" for line in lines)])
