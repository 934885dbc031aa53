"""A table of images: CSV and Parquet, local and remote, well-formed and not."""

from pathlib import Path

import fsspec
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.errors import DataError
from tests.support.images import encode, scene, write_class_folders

PNG = encode(Image.fromarray(scene()))


def manifest(path: object, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"source": "manifest", "path": str(path), **settings})


def table_of(root: Path) -> pd.DataFrame:
    files = sorted(root.rglob("*.png"))
    paths = [f.relative_to(root).as_posix() for f in files]
    return pd.DataFrame({"image_path": paths, "label": [p.split("/")[0] for p in paths]})


@pytest.mark.parametrize("kind", ["csv", "semicolons", "parquet"])
def test_a_table_gives_the_dataset_that_the_folder_gives(tmp_path: Path, kind: str) -> None:
    write_class_folders(tmp_path, per_class=5)
    table, name = table_of(tmp_path), tmp_path / "labels.csv"
    if kind == "parquet":
        name = tmp_path / "labels.parquet"
        table.to_parquet(name)
    else:
        # As a spreadsheet saves it: byte-order mark, semicolons, further columns.
        table.assign(note="x").to_csv(
            name, index=False, sep=";" if kind == "semicolons" else ",", encoding="utf-8-sig"
        )
    folder = DataConfig.model_validate({"source": "folder", "path": str(tmp_path)})
    assert ingest(manifest(name)).fingerprint == ingest(folder).fingerprint


def test_columns_are_called_as_configured(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=4)
    table = table_of(tmp_path).rename(columns={"image_path": "file", "label": "kind"})
    table = table.assign(key=range(len(table)), fold="dev", patient=[n // 2 for n in range(8)])
    table.to_csv(tmp_path / "t.csv", index=False)
    columns = {"image": "file", "label": "kind", "id": "key", "split": "fold", "group": "patient"}
    dataset = ingest(manifest(tmp_path / "t.csv", manifest={"columns": columns}))
    row = dataset.manifest.set_index("id").loc["5"]
    assert (row["group"], row["official_split"]) == ("2", "validation")


def test_images_may_lie_under_another_root_also_a_remote_one(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for n in range(4):
        memory.pipe(f"/store/{n}.png", PNG)
    (tmp_path / "t.csv").write_text("image_path,label\n0.png,a\n1.png,b\nmemory://store/2.png,a\n")
    remote = {"root": "memory://store", "allowed_schemes": ["memory"]}
    assert len(ingest(manifest(tmp_path / "t.csv", manifest=remote))) == 3
    memory.pipe("/store/t.csv", (tmp_path / "t.csv").read_bytes())
    assert len(ingest(manifest("memory://store/t.csv", max_unreadable_share=0.5))) == 2


def test_each_row_that_is_refused_keeps_its_id_and_reason(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    for n in range(4):
        (tmp_path / "images" / f"{n}.png").write_bytes(PNG)
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    bad = {
        str(tmp_path / "secret.png"): "absolute",
        "../secret.png": "climbs",
        "link.png": "leaves the folder",
        "missing.png": "no such file",
        "s3://bucket/x.png": "scheme 's3:' is not allowed",
        "file:///etc/passwd": "scheme 'file:' is not allowed",
        "": "names no image",
    }
    rows = [f"{n}.png,{'ab'[n % 2]}" for n in range(4)] + [f"{path},a" for path in bad]
    (tmp_path / "images" / "t.csv").write_text("\n".join(["image_path,label", *rows]))
    dataset = ingest(manifest(tmp_path / "images" / "t.csv", max_unreadable_share=0.9))
    assert len(dataset) == 4
    found = {u.id: u.reason for u in dataset.unreadable}
    assert set(found) == set(bad)
    for path, reason in bad.items():
        assert reason in found[path]


def test_number_labels_are_sorted_as_numbers_and_missing_ones_stay_missing(tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / f"{n}.png").write_bytes(PNG)
    table = pd.DataFrame(
        {"image_path": [f"{n}.png" for n in range(12)], "label": [*range(11), None]}
    )
    table.to_parquet(tmp_path / "t.parquet")
    dataset = ingest(manifest(tmp_path / "t.parquet"))
    assert dataset.class_names == tuple(map(str, range(11)))
    assert dataset.manifest.set_index("id")["label"]["11.png"] == -1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (
            b"file,label\n1.png,a\n",
            r"no column 'image_path' \(set by data.manifest.columns.image\)",
        ),
        (b"image_path,label\n1.png,a,b\n", "Expected 2 columns, got 3"),
        (b"image_path,label\n", "lists no images"),
        (b"image_path,label,label\n1,a,b\n", "column 'label' twice"),
        (b"image_path,label,split\n1.png,a,somewhere\n", "'somewhere'; a split is train"),
        (b"image_path,label\n\xff\xfe.png,a\n", "UTF8"),
        ("image_path,label\n1.png,a\n".encode("utf-16"), "is not UTF-8; save the table as UTF-8"),
    ],
)
def test_a_table_that_is_wrong_is_named_with_what_is_wrong(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(manifest(tmp_path / "t.csv"))


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv cannot be read: No such file"):
        open_source(manifest(tmp_path / "t.csv"))
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(DataError, match="not a readable Parquet"):
        open_source(manifest(tmp_path / "t.parquet"))


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(names | st.sampled_from(["a.png", "b.png", "../a.png"]), names),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[0],
    )
)
def test_whatever_a_table_holds_each_row_is_an_image_or_a_reason(
    tmp_path: Path, rows: list[tuple[str, str]]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(PNG)
    table = pd.DataFrame([*rows, ("c.png", "c")], columns=["image_path", "label"])
    table = table.drop_duplicates("image_path")
    table.to_parquet(tmp_path / "t.parquet")
    dataset = ingest(manifest(tmp_path / "t.parquet", max_unreadable_share=1.0))
    ids = [*dataset.manifest["id"], *(u.id for u in dataset.unreadable)]
    assert sorted(ids) == sorted(table["image_path"])
    assert all(u.reason for u in dataset.unreadable)
    labels = dict(zip(table["image_path"], table["label"], strict=True))
    for id_, label in zip(dataset.manifest["id"], dataset.labels, strict=True):
        assert (dataset.class_names[label] if label >= 0 else "") == labels[id_]
