"""Images that DVC tracks, at an old and a new revision of a real repository."""

import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.errors import DataError
from tests.support.images import write_class_folders


def of_repository(repo: Path, path: str, **dvc: str) -> DataConfig:
    return DataConfig.model_validate(
        {"source": "dvc", "path": path, "dvc": {"repo": str(repo), **dvc}}
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repo = tmp_path / "repo"
    repo.mkdir()

    def run(*command: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *command], cwd=repo, check=True, capture_output=True)

    run("init")
    write_class_folders(repo / "pets", per_class=4)
    with Repo.init(str(repo)) as dvc:
        dvc.add(str(repo / "pets"))
    run("add", "-A")
    run("commit", "-m", "four a class")
    run("tag", "v1")
    (repo / "pets" / "disc" / "003.png").unlink()
    (repo / "pets" / "labels.csv").write_text(
        "image_path,label\ndisc/000.png,a\nstripe/000.png,b\n"
    )
    with Repo(str(repo)) as dvc:
        dvc.add(str(repo / "pets"))
    run("commit", "-am", "one less")
    return repo


def test_each_revision_gives_its_own_images(repository: Path) -> None:
    old = ingest(of_repository(repository, "pets", revision="v1"))
    new = ingest(of_repository(repository, "pets"))
    assert (len(old), len(new)) == (8, 7)
    assert old.manifest["source"][0].endswith("@v1/pets/disc/000.png")
    tables = ingest(of_repository(repository, "pets/labels.csv"))
    assert tables.class_counts == {"a": 1, "b": 1}
    for revision, message in (("v9", "cannot be read.*v9"), ("v1", "nowhere does not exist")):
        with pytest.raises(DataError, match=message):
            open_source(of_repository(repository, "nowhere", revision=revision))
