"""CodeBuild: projects that a template declares, and builds, which say so if nothing was built."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controls import Controls
from image_build import ImageBuild, engine_is_at_hand
from moto.cloudformation.parsing import resource_class_from_type
from moto.codebuild.models import CodeBuildBackend, codebuild_backends
from moto.codebuild.responses import CodeBuildResponse
from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult
from moto.logs.models import LogsBackend, logs_backends

_GROUP = "/aws/codebuild/{project}"
_NOT_BUILT = "This is the emulator, with no Docker engine at hand: the image was NOT built."


class CodeBuildProject(CloudFormationModel):
    """The resource type AWS::CodeBuild::Project, which moto's CloudFormation lacks."""

    # moto reads the name of a class's service off its module's.
    __module__ = "moto.codebuild"

    def __init__(self, name: str, arn: str) -> None:
        """Remember the project that the backend holds."""
        self.name = name
        self.arn = arn

    @property
    def physical_resource_id(self) -> str:
        """What Ref gives."""
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        """The property that names it."""
        return "Name"

    @staticmethod
    def cloudformation_type() -> str:
        """The resource type."""
        return "AWS::CodeBuild::Project"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Whether GetAtt knows the attribute."""
        return attr == "Arn"

    def get_cfn_attribute(self, attribute_name: str) -> str:
        """What GetAtt gives."""
        return self.arn

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
        **kwargs: Any,
    ) -> "CodeBuildProject":
        """Create the project."""
        template = cloudformation_json["Properties"]
        backend_project = codebuild_backends[account_id][region_name].create_project(
            project_name=resource_name,
            description=template.get("Description"),
            project_source=_lower(template["Source"]),
            artifacts=_lower(template["Artifacts"]),
            environment=_lower(template["Environment"]),
            service_role=template["ServiceRole"],
            tags=None,
            cache=None,
            timeout=template.get("TimeoutInMinutes"),
            queued_timeout=None,
            source_version=None,
            logs_config=None,
            vpc_config=None,
        )
        return cls(resource_name, backend_project["arn"])

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> None:
        """Delete it."""
        codebuild_backends[account_id][region_name].delete_project(resource_name)


def install(folder: Path) -> None:
    """Let builds be real where they can, and else end as the folder's controls say; with a log."""
    assert resource_class_from_type("AWS::CodeBuild::Project") is CodeBuildProject
    start: Callable[[CodeBuildResponse], ActionResult] = CodeBuildResponse.start_build
    batch_get_builds = CodeBuildBackend.batch_get_builds
    real: dict[str, ImageBuild] = {}

    def start_build(response: CodeBuildResponse) -> ActionResult:
        result = start(response)
        if engine_is_at_hand() and not Controls.read(folder).failing_build_log:
            real[result.result["build"]["id"]] = ImageBuild(json.loads(response.body))
        return result

    def with_log(backend: CodeBuildBackend, ids: list[str]) -> list[dict[str, Any]]:
        builds: list[dict[str, Any]] = batch_get_builds(backend, ids)
        for build in builds:
            failing = Controls.read(folder).failing_build_log
            lines = failing or (_NOT_BUILT,)
            if build["id"] in real:
                build["buildStatus"] = real[build["id"]].status()
                lines = tuple(real[build["id"]].lines)
            elif failing:
                build["buildStatus"] = "FAILED"
            if build["buildStatus"] != "IN_PROGRESS":
                logs = logs_backends[backend.account_id][backend.region_name]
                build["logs"] = _write_log(logs, build["id"], lines)
        return builds

    CodeBuildResponse.start_build = start_build
    CodeBuildBackend.batch_get_builds = with_log


def _write_log(logs: LogsBackend, build_id: str, lines: tuple[str, ...]) -> dict[str, str]:
    """Write a build's log, once, and return where it is."""
    project, stream = build_id.split(":")
    group = _GROUP.format(project=project)
    if group not in logs.groups:
        logs.create_log_group(group, {})
    if stream not in logs.groups[group].streams:
        logs.create_log_stream(group, stream)
        now = int(time.time() * 1000)
        events = [{"timestamp": now + n, "message": line} for n, line in enumerate(lines)]
        logs.put_log_events(group, stream, events)
    return {"groupName": group, "streamName": stream}


def _lower(properties: dict[str, Any]) -> dict[str, Any]:
    """Return a template's properties under the names that the API gives them."""
    return {key[0].lower() + key[1:]: value for key, value in properties.items()}
