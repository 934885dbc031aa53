"""A table of images: CSV and Parquet, local and remote, well-formed and not."""

import logging
import re
import sys
import unicodedata
from decimal import Decimal
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.data.sources._rows import strip_blanks
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
    dataset = ingest(manifest("memory://store/t.csv"))
    assert list(dataset.manifest["id"]) == ["0.png", "1.png", "2.png"], "a URL below the root"


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
        "s3://bucket/x.png": "'s3:' is not allowed (add it to data.manifest.allowed_schemes)",
        "file:///etc/passwd": "the file does not lie below the root (data.manifest.root)",
        "data:image/png;base64": "'data:' is not allowed (data.manifest.allowed_schemes has no",
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
        (b"image_path,label\n1.png,a,b\n", "line 2: expected 2 columns, got 3"),
        (b'image_path,label\n1.png,a\n"2.png,b\n', "line 3: no readable CSV"),
        (b"image_path,label\n", "lists no images"),
        (b"image_path,label,label\n1,a,b\n", "column 'label' twice"),
        (b"image_path,label,split\n1.png,a,somewhere\n", "'somewhere'; a split is train"),
        (b"image_path,Label \n1.png,a\n", "its columns are 'image_path', 'Label '"),
        (
            "image_path,label\n1.png,a\n2.png,th\xe9\n".encode("cp1252"),
            "line 3, is not UTF-8; save the table as UTF-8, or .*data.manifest.encoding=cp1252",
        ),
        (
            "image_path,label\n1.png,a\n".encode("utf-16"),
            "line 1, is not UTF-8; .*data.manifest.encoding=utf-16",
        ),
        (
            "image_path,label\n1.png,a\n".encode("utf-16-le"),
            "line 1, is not UTF-8; .*data.manifest.encoding=utf-16",
        ),
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
@example([("._", "a")])
def test_whatever_a_table_holds_each_row_is_an_image_or_a_reason(
    tmp_path: Path, rows: list[tuple[str, str]]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(PNG)
    table = pd.DataFrame([*rows, ("c.png", "c")], columns=["image_path", "label"])
    table = table.drop_duplicates("image_path")
    table.to_parquet(tmp_path / "t.parquet")
    dataset = ingest(manifest(tmp_path / "t.parquet", max_unreadable_share=1.0))
    n_rows = ((table["image_path"] != "") | (table["label"] != "")).sum()
    notices = re.findall(r"(\d+) files? of the operating system left out", str(dataset.notices))
    n_system_files = sum(map(int, notices))
    assert len(dataset) + len(dataset.unreadable) + n_system_files == n_rows
    assert all(u.reason for u in dataset.unreadable)
    labels = dict(zip(table["image_path"], table["label"], strict=True))
    for id_, label in zip(dataset.manifest["id"], dataset.labels, strict=True):
        if id_ in labels:  # else another spelling of its path
            name = unicodedata.normalize("NFC", strip_blanks(labels[id_]))
            assert (dataset.class_names[label] if label >= 0 else "") == name


def read_csv(root: Path, content: str | bytes, **settings: object) -> ImageDataset:
    """Return the dataset of a CSV in a folder that holds the images of ``pets``."""
    table = root / "t.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ingest(manifest(table, **settings))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("img/1.png", "img/2.png", "img/3.png", "cam0-2024-05-01T12:30:07.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\r\nimage_path;label\r\nimg/1.png;cat\r\nimg/2.png;dog\r\n",
        '"sep=;"\nimage_path;label\nimg/1.png;cat\nimg/2.png;dog\n',
        "image_path, label\nimg/1.png, cat\n img/2.png , dog \n",
        'image_path, label\n"img/1.png", "cat"\nimg/2.png,"dog"\n',
        "image_path,label\nimg/1.png,cat\u00a0\nimg/2.png,\tdog\u200b\n",
        "image_path,label,note\nimg/1.png,cat,x\nimg/2.png,dog,x\n,,\n , ,\n\n  \n,\n",
        "image_path|label\nimg\\1.png|cat\nimg\\2.png|dog\n",
        b"image_path,label,note\nimg/1.png,cat,caf\xe9\nimg/2.png,dog,x\n",
        "image_path,label\rimg/1.png,cat\rimg/2.png,dog\r",
    ],
    ids=[
        "sep",
        "quoted sep",
        "blanks",
        "quotes",
        "invisible",
        "empty rows",
        "backslashes",
        "note",
        "returns",
    ],
)
def test_a_table_of_a_spreadsheet_is_read(pets: Path, content: str | bytes) -> None:
    dataset = read_csv(pets, content)
    assert list(dataset.manifest["id"]) == ["img/1.png", "img/2.png"]
    assert dataset.class_counts == {"cat": 1, "dog": 1}
    assert not dataset.unreadable


def test_empty_rows_are_counted(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read_csv(pets, "image_path,label\nimg/1.png,cat\n,\n,\n")
    assert "2 rows without a value in 'image_path', 'label' are left out" in caplog.text


def test_an_encoding_is_read_as_it_is_named(pets: Path) -> None:
    table = "image_path,label\nimg/1.png,caf\u00e9\nimg/2.png,cafe\u0301\nimg/3.png,th\u00e9\n"
    named = read_csv(pets, table.encode("utf-16"), manifest={"encoding": "utf-16"})
    assert named.class_counts == {"caf\u00e9": 2, "th\u00e9": 1}, "in Unicode's normal form C"
    with pytest.raises(ValueError, match="unknown encoding"):
        manifest("t.csv", manifest={"encoding": "latin-a"})


def test_absolute_paths_and_file_urls_below_the_root_are_relative_ones(pets: Path) -> None:
    (pets / "link").symlink_to(pets / "img", target_is_directory=True)
    rows = f"{pets}/img/1.png,cat\nfile://localhost{pets}/img/2.png,dog\n{pets}/link/3.png,dog\n"
    dataset = read_csv(pets, f"image_path,label\n{rows}", manifest={"root": str(pets / "img")},
                       max_unreadable_share=0.5)  # fmt: skip
    assert list(dataset.manifest["id"]) == ["1.png", "2.png"]
    (outside,) = dataset.unreadable
    assert outside.reason == (
        "the path is absolute and does not lie below the root (data.manifest.root)"
    )
    root = read_csv(pets, f"image_path,label\n{rows}", manifest={"root": "/"})
    assert len(root) == 3


def test_a_row_cannot_send_the_environment_to_an_address_of_its_own(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGES_KEY", "s3cret")
    fsspec.filesystem("memory").pipe("/s3cret/1.png", PNG)
    urls = ["memory://{env:IMAGES_KEY}/1.png", "memory://{env:NOT_SET}/1.png"]
    rows = "".join(f"{url},a\n" for url in urls)
    table = f"image_path,label\nimg/1.png,a\nimg/2.png,b\n{rows}"
    schemes = {"allowed_schemes": ["memory"]}
    dataset = read_csv(pets, table, manifest=schemes, max_unreadable_share=0.5)
    assert [image.id for image in dataset.unreadable] == urls


def test_a_colon_in_a_file_name_is_no_scheme(pets: Path) -> None:
    (pets / "cam::1.png").write_bytes(PNG)
    rows = "cam0-2024-05-01T12:30:07.png,a\ncam::1.png,a\nimg/1.png,b\n"
    assert len(read_csv(pets, f"image_path,label\n{rows}")) == 3


def test_a_path_is_read_in_the_normal_form_of_the_file_system(pets: Path) -> None:
    (pets / "cafe\u0301.png").write_bytes(PNG)
    (pets / "back\\slash.png").write_bytes(PNG)
    table = "image_path,label\ncaf\u00e9.png,a\nback\\slash.png,b\n"
    assert list(read_csv(pets, table).manifest["id"]) == ["back\\slash.png", "cafe\u0301.png"]


def test_when_no_image_can_be_read_the_reasons_are_counted(pets: Path) -> None:
    rows = "".join(f"/elsewhere/{n}.png,a\n" for n in range(30))
    with pytest.raises(DataError) as caught:
        read_csv(pets, f"image_path,label\n{rows}s3://b/1.png,b\nimg/9.png,b\n")
    message = str(caught.value)
    assert "none of the 32 images looked at can be read" in message
    assert f"{pets}//elsewhere/0.png: the path is absolute" in message
    assert "and 24 more: the path is absolute and does not lie below the root" in message
    assert "s3://b/1.png: the scheme 's3:' is not allowed" in message
    assert "9.png: there is no such file" in message


def test_the_columns_split_and_group_can_be_ignored(pets: Path) -> None:
    table = "image_path,label,split,group\nimg/1.png,a,0,p\nimg/2.png,b,1,p\n"
    with pytest.raises(DataError, match=r"row 1: .*'0'.*data\.manifest\.columns\.split=null"):
        read_csv(pets, table)
    columns = {"split": None, "group": None}
    row = read_csv(pets, table, manifest={"columns": columns}).manifest.iloc[0]
    assert (row["official_split"], row["group"]) == ("", "")
    with pytest.raises(DataError, match=r"no column 'fold' \(set by data.manifest.columns.split\)"):
        read_csv(pets, table, manifest={"columns": {"split": "fold"}})


def write_parquet(root: Path, **columns: object) -> DataConfig:
    pq.write_table(pa.table(columns), root / "t.parquet")
    return manifest(root / "t.parquet")


def test_values_of_parquet_that_are_text_are_decoded(pets: Path) -> None:
    paths = pa.array([b"img/1.png", b"img/2.png", b"img/3.png"], pa.binary())
    config = write_parquet(pets, image_path=paths, label=pa.array([b"cat", b"th\xc3\xa9", b" cat"]))
    assert ingest(config).class_counts == {"cat": 2, "th\u00e9": 1}
    decimals = pa.array([Decimal("1.00"), Decimal(2), None], pa.decimal128(5, 2))
    config = write_parquet(pets, **{"image_path": paths, " label": decimals})
    assert ingest(config).class_counts == {"1": 1, "2": 1}


@pytest.mark.parametrize(
    ("label", "kind"),
    [([["cat"]], "list"), ([{"a": 1}], "dict"), ([0.5], "float"), ([b"\xff"], "bytes")],
)
def test_values_that_are_no_text_are_refused_by_column_and_type(
    pets: Path, label: list[object], kind: str
) -> None:
    config = write_parquet(pets, image_path=["img/1.png"], label=label)
    with pytest.raises(DataError, match=rf"row 1: the column 'label' holds .* \({kind}\), neither"):
        open_source(config)


def test_a_bucket_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, package, message in (
        ("s3", "s3fs", r"s3fs.*make setup EXTRAS=sources$"),
        ("gs", "gcsfs", r"install gcsfs[^.]*\.$"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})
        with pytest.raises(DataError, match=message):
            open_source(manifest(f"{scheme}://bucket/t.csv"))
