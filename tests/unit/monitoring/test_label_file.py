"""Tables of labels: every row that cannot be used is named, and none is stored then."""

from pathlib import Path

import pandas as pd
import pytest

from cv_factory.errors import DataError, ImageError
from cv_factory.monitoring.label_file import LabelFile, read_label_file
from cv_factory.serving.label_record import Label

HMAC = "ab" * 32


def hash_image(path: Path) -> str:
    if path.suffix != ".png":
        raise ImageError("no image")
    return HMAC


def read(path: Path) -> LabelFile:
    return read_label_file(path, source="person:ann", is_blind=False, hash_image=hash_image)


def test_a_csv_names_predictions_or_images_and_says_whose_labels_they_are(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(
        "prediction_id;image; label ;source;is_blind;remark\n"
        "a;;cat;person:bob;yes;x\n"
        "b;other.png;dog;;;\n"
        ";some.png;cat;;FALSE;\n"
        "c;;;;;not labelled yet\n"
    )
    table = read(file)
    assert table.n_empty == 1
    assert table.labels == {
        1: Label(label="cat", prediction_id="a", source="person:bob", is_blind=True),
        2: Label(label="dog", prediction_id="b", source="person:ann"),
        3: Label(label="cat", image_hmac=HMAC, source="person:ann"),
    }


def test_a_parquet_table_keeps_its_types(tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    rows = {"image_hmac": [HMAC, HMAC], "label": [3, None], "is_blind": [True, None]}
    pd.DataFrame(rows).to_parquet(file)
    table = read(file)
    label = Label(label="3", image_hmac=HMAC, source="person:ann", is_blind=True)
    assert (table.labels, table.n_empty) == ({1: label}, 1)


def test_every_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(
        "prediction_id,image_hmac,image,label,source,is_blind\n"
        "a,,,cat,,\n"
        ",,,cat,,\n"
        "a,,,cat,ann,\n"
        "a,,,cat,,perhaps\n"
        ",xy,,cat,,\n"
        ",,some.txt,cat,,\n"
    )
    with pytest.raises(DataError) as error:
        read(file)
    first, *rows = str(error.value).splitlines()
    assert "5 rows cannot be used, and none was stored" in first
    assert [row.strip().partition(":")[0] for row in rows] == [f"row {n}" for n in range(2, 7)]
    assert "names the prediction" in rows[0] or "name the prediction" in rows[0]
    assert "is_blind: must be true or false (got 'perhaps')" in rows[2]
    assert rows[4].endswith("row 6: no image")


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("id,label\na,cat\n")
    with pytest.raises(DataError, match="it needs label, and one of prediction_id"):
        read(file)
