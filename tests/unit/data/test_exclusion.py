"""``data.exclude``: images that a table names are left out of any source, and no class vanishes."""

from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.errors import SourceError
from tests.support.images import write_class_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "pets", per_class=3, size=8)
    return tmp_path / "pets"


def _config(folder: Path, *ids: str, header: str = "id") -> DataConfig:
    table = folder.parent / "doubtful.csv"
    # As spreadsheets on Windows write it.
    lines = [f"\ufeffkind,{header}", *(f"label,{id_}" for id_ in ids)]
    table.write_text("\r\n".join(lines) + "\r\n", newline="")
    return DataConfig(source="folder", path=str(folder), exclude=str(table))


def _ids(config: DataConfig) -> list[str]:
    with open_source(config) as source:
        return [record.id for record in source.records(np.arange(len(source)))]


def test_listed_images_are_left_out_and_counted(folder: Path) -> None:
    every = _ids(DataConfig(source="folder", path=str(folder)))
    config = _config(folder, every[1], "no/such.png")
    dataset = ingest(config)
    assert list(dataset.manifest["id"]) == [every[0], *every[2:]]
    left_out, unknown = dataset.notices
    assert left_out.startswith("1 image left out, as ")
    assert "1 id in " in unknown
    assert unknown.endswith(f"of no image in folder {folder}: no/such.png.")


def test_test_images_that_are_left_out_are_counted(folder: Path) -> None:
    first, second, *_ = _ids(DataConfig(source="folder", path=str(folder)))
    config = _config(folder)
    Path(str(config.exclude)).write_text(f"id,part\n{first},test\n{second},train\ngone,test\n")
    with open_source(config) as source:
        _, of_test, _ = source.notices
    assert of_test.startswith("1 test image left out (data.exclude): accuracies with and without")


def test_all_images_without_a_label_may_be_left_out(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=2, size=8)
    names = [str(path) for path in sorted(tmp_path.glob("*/*.png"))]
    manifest, table = tmp_path / "labels.csv", tmp_path / "doubtful.csv"
    manifest.write_text(f"image_path,label\n{names[0]},a\n{names[1]},b\n{names[2]},\n")
    config = DataConfig(source="manifest", path=str(manifest))
    every = _ids(config)
    table.write_text(f"id\n{every[2]}\n")
    assert _ids(config.model_copy(update={"exclude": str(table)})) == every[:2]


def test_a_change_of_the_list_changes_the_fingerprint(folder: Path) -> None:
    every = _ids(DataConfig(source="folder", path=str(folder)))
    fingerprints = set()
    for listed in (every[:1], every[:2]):
        with open_source(_config(folder, *listed)) as source:
            fingerprints.add(source.fingerprint())
    assert len(fingerprints) == 2


def test_arrays_lose_images_as_well(tmp_path: Path) -> None:
    every = _ids(DataConfig(source="digits"))
    table = tmp_path / "doubtful.csv"
    table.write_text(f"id\n{every[5]}\n")
    assert _ids(DataConfig(source="digits", exclude=str(table))) == every[:5] + every[6:]


def test_no_class_is_dropped_silently(folder: Path) -> None:
    every = _ids(DataConfig(source="folder", path=str(folder)))
    name = every[0].split("/")[0]
    with pytest.raises(SourceError, match=f"leaves no image of {name} in folder"):
        open_source(_config(folder, *(id_ for id_ in every if id_.startswith(name))))


@pytest.mark.parametrize(
    ("ids", "header", "message"),
    [
        (["else.png"], "id", "None of the 1 id in .* such as else.png, is of an image in folder"),
        (["a"], "name", "has no column 'id'; its columns are 'kind', 'name'"),
    ],
)
def test_a_list_that_fits_nothing_is_refused(
    folder: Path, ids: list[str], header: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(_config(folder, *ids, header=header))


def test_a_list_that_is_not_there_is_named(folder: Path) -> None:
    config = _config(folder, "a").model_copy(update={"exclude": "missing.csv"})
    with pytest.raises(SourceError, match=r"missing.csv \(data.exclude\) cannot be read: No such"):
        open_source(config)


def test_settings_of_earlier_releases_keep_their_fingerprint() -> None:
    assert "exclude" not in DataConfig().fingerprint_fields()
