"""Bentos in a bucket, file by file: SageMaker puts them into a container without unpacking."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from cv_factory.deployment.bento import build_bento
from cv_factory.deployment.sagemaker.aws_calls import AwsClients, translate_aws_errors
from cv_factory.serving.bundle import Bundle

#: Of a Bento, where its bundle lies.
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
        with TemporaryDirectory(prefix="cv-factory-bento-") as scratch:
            folder = Path(scratch, "bento")
            build_bento(bundle, folder)
            files = [path for path in folder.rglob("*") if path.is_file()]
            s3 = self.aws.client("s3")

            def put(path: Path) -> None:
                key = f"{self.prefix}{variant}/{path.relative_to(folder).as_posix()}"
                with path.open("rb") as content:
                    s3.put_object(Bucket=self.bucket, Key=key, Body=content)

            with translate_aws_errors(f"The Bento cannot be stored at {self.uri(variant)}"):
                _for_all(put, files)

    def load_bundle(self, variant: str) -> Bundle:
        """Download a variant's bundle.

        Raises:
            ArtifactError: It is damaged, or not there.
            AwsError: S3 refuses it.
        """
        start = f"{self.prefix}{variant}/{_BUNDLE}"
        s3 = self.aws.client("s3")
        with TemporaryDirectory(prefix="cv-factory-bundle-") as scratch:
            folder = Path(scratch)

            def get(key: str) -> None:
                target = folder / key.removeprefix(start)
                target.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(self.bucket, key, str(target))

            with translate_aws_errors(f"The bundle at s3://{self.bucket}/{start} cannot be read"):
                _for_all(get, list(self._keys(start)))
            return Bundle.load(folder)

    def prune(self, keep: Collection[str]) -> None:
        """Delete the Bentos of all other variants.

        Raises:
            AwsError: S3 refuses it.
        """
        with translate_aws_errors(f"s3://{self.bucket}/{self.prefix} cannot be pruned"):
            prefixes = tuple(f"{self.prefix}{variant}/" for variant in keep)
            delete = partial(self.aws.client("s3").delete_object, Bucket=self.bucket)
            keys = [key for key in self._keys(self.prefix) if not key.startswith(prefixes)]
            _for_all(lambda key: delete(Key=key), keys)

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = self.aws.client("s3").get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
            yield from (item["Key"] for item in page.get("Contents", []))


def _for_all(work: Callable[[Item], object], items: Sequence[Item]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, items):
            pass
