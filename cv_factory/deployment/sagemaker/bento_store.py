"""Bentos in a bucket, file by file: SageMaker puts them into a container without unpacking."""

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from cv_factory.artifacts.transfer import fetch_file, put_file
from cv_factory.deployment.bento import build_bento
from cv_factory.deployment.sagemaker.aws_calls import AwsClients, translate_aws_errors
from cv_factory.serving.bundle import Bundle

#: Folder of the bundle in a Bento.
_BUNDLE = "src/bundle/"
_THREADS = 8
Item = TypeVar("Item")


@dataclass(frozen=True)
class BentoStore:
    """The Bentos of an endpoint's variants, each under a prefix of its own.

    Attributes:
        aws: The clients.
        bucket: Where they are.
        prefix: Of all of them, with a slash at its end.
    """

    aws: AwsClients
    bucket: str
    prefix: str

    def uri(self, variant: str) -> str:
        """Return where a variant's Bento is, as SageMaker takes it."""
        return f"s3://{self.bucket}/{self.prefix}{variant}/"

    def upload(self, variant: str, bundle: Bundle) -> None:
        """Build a Bento of a bundle, the one that the local deployer runs, and upload it.

        Raises:
            BentoError: It cannot be built.
            AwsError: S3 refuses it.
        """
        uri, s3 = self.uri(variant), self.aws.s3_filesystem
        with TemporaryDirectory(prefix="cv-factory-bento-") as scratch:
            folder = Path(scratch, "bento")
            build_bento(bundle, folder)
            files = [path for path in folder.rglob("*") if path.is_file()]
            with translate_aws_errors(f"The Bento cannot be stored at {uri}"):
                _for_all(lambda p: put_file(s3, p, f"{uri}{p.relative_to(folder)}"), files)

    def load_bundle(self, variant: str) -> Bundle:
        """Download a variant's bundle.

        Raises:
            ArtifactError: It is damaged, or not there.
            AwsError: S3 refuses it.
        """
        s3 = self.aws.s3_filesystem
        start = f"{self.bucket}/{self.prefix}{variant}/{_BUNDLE}"
        with TemporaryDirectory(prefix="cv-factory-bundle-") as scratch:

            def fetch(key: str) -> None:
                target = Path(scratch, key.removeprefix(start))
                target.parent.mkdir(parents=True, exist_ok=True)
                fetch_file(s3, key, target)

            with translate_aws_errors(f"The bundle at s3://{start} cannot be read"):
                _for_all(fetch, s3.find(start))
            return Bundle.load(Path(scratch))

    def prune(self, keep: Collection[str]) -> None:
        """Delete the Bentos of all other variants."""
        s3, root = self.aws.s3_filesystem, f"{self.bucket}/{self.prefix}"
        prefixes = tuple(f"{root}{variant}/" for variant in keep)
        with translate_aws_errors(f"s3://{root} cannot be pruned"):
            _for_all(s3.rm_file, [key for key in s3.find(root) if not key.startswith(prefixes)])


def _for_all(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, items):
            pass
