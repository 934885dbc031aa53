"""Container image of the services on SageMaker: its build context, and whether it is built.

It holds no code and no model, so that one image serves all versions until the lock changes.
"""

import hashlib
from functools import cached_property
from pathlib import Path

import cv_factory
from cv_factory.deployment.bento import REQUIREMENTS
from cv_factory.deployment.requirements import pin_requirements
from cv_factory.deployment.sagemaker.aws_calls import AwsClients, translate_aws_errors

_ROOT = Path(cv_factory.__file__).resolve().parents[1]
CONTAINERFILE = _ROOT / "stacks" / "aws" / "service.Containerfile"
_LOCK = _ROOT / "requirements.lock"


class ServiceImage:
    """The image in a repository.

    Attributes:
        repository: Its registry and name, without a tag.
    """

    def __init__(self, aws: AwsClients, repository: str) -> None:
        """Prepare; nothing is sent yet."""
        self._aws = aws
        self.repository = repository

    @cached_property
    def files(self) -> dict[str, str]:
        """The build context: text by file name.

        Raises:
            BentoError: A requirement is not in the lock.
        """
        return {
            "Dockerfile": CONTAINERFILE.read_text(encoding="utf-8"),
            "requirements.txt": pin_requirements(REQUIREMENTS, _LOCK.read_text(encoding="utf-8")),
        }

    @property
    def name(self) -> str:
        """Its full name; the tag is a checksum of what it is built from."""
        content = "\0".join(f"{name}\0{text}" for name, text in sorted(self.files.items()))
        return f"{self.repository}:{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def is_built(self) -> bool:
        """Whether the repository has it."""
        ecr = self._aws.client("ecr")
        _, _, tag = self.name.rpartition(":")
        _, _, name = self.repository.partition("/")
        with translate_aws_errors(f"The image repository {name} cannot be read"):
            try:
                ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])
            except ecr.exceptions.ImageNotFoundException:
                return False
        return True
