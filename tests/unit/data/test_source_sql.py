"""A query's rows as images: paths and bytes, from a real SQLite file and a real PostgreSQL."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from cv_factory.config.data import DataConfig, FetchConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.data.sources._database import Database
from cv_factory.errors import ConfigError, DataError
from tests.support.images import write_class_folders


def query_of(url: str, query: str, **settings: object) -> DataConfig:
    columns = settings.pop("columns", {})
    common = {
        k: settings.pop(k) for k in ("max_unreadable_share", "limit", "fetch") if k in settings
    }
    sql = {"url": url, "query": query, "columns": columns, **settings}
    return DataConfig.model_validate({"source": "sql", "sql": sql, **common})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "images", per_class=40)
    return tmp_path / "images"


@pytest.fixture
def database(images: Path) -> str:
    file = images.parent / "images.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE pictures (n INTEGER PRIMARY KEY, file, kind, pixels BLOB)")
        for n, path in enumerate(sorted(images.rglob("*.png"))):
            row = (n, path.relative_to(images).as_posix(), path.parent.name, path.read_bytes())
            connection.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", row)
    connection.close()
    return f"sqlite:///{file}"


def test_paths_and_bytes_give_the_dataset_that_the_folder_gives(
    images: Path, database: str
) -> None:
    folder = ingest(DataConfig.model_validate({"source": "folder", "path": str(images)}))
    paths = query_of(
        database, "SELECT file AS image_path, kind AS label FROM pictures;", root=str(images)
    )
    assert ingest(paths).fingerprint == folder.fingerprint
    stored = query_of(
        database,
        "SELECT * FROM pictures WHERE n >= 0",
        columns={"image": "pixels", "label": "kind", "id": "n"},
    )
    dataset = ingest(stored)
    assert sorted(dataset.manifest["pixels_sha256"]) == sorted(folder.manifest["pixels_sha256"])
    assert dataset.class_counts == folder.class_counts
    assert dataset.manifest["id"].tolist()[:2] == ["0", "1"]
    assert len(ingest(stored.model_copy(update={"limit": 10}))) == 10


def test_labels_are_counted_without_the_bytes(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"image": "pixels", "label": "kind", "id": "n"}
    stored = query_of(database, "SELECT * FROM pictures", columns=columns)
    with open_source(stored) as source:
        records = [(r.label, r.official_split) for r in source.records(np.arange(len(source)))]
        monkeypatch.setattr(type(source), "_fetch", None)
        assert list(source.labels_and_parts(np.arange(len(source)))) == records


def test_a_row_without_an_image_is_left_out_with_its_reason(images: Path, database: str) -> None:
    with sqlite3.connect(images.parent / "images.db") as connection:
        connection.execute("UPDATE pictures SET pixels = x'' WHERE n = 0")
        connection.execute("UPDATE pictures SET pixels = NULL WHERE n = 3")
        connection.execute("UPDATE pictures SET pixels = x'00' WHERE n = 4")
    connection.close()
    columns = {"image": "pixels", "label": "kind", "id": "n"}
    config = query_of(database, "SELECT * FROM pictures", columns=columns, max_unreadable_share=0.1)
    dataset = ingest(config)
    assert [(u.id, u.reason) for u in dataset.unreadable] == [
        ("0", "the file is empty"),
        ("3", "the row holds no image, or is gone since the listing"),
        ("4", "not an image, or of a format that is not supported"),
    ]


@pytest.mark.parametrize(
    ("query", "settings", "message"),
    [
        ("SELECT file FROM pictures", {}, "no column 'image_path'"),
        ("SELECT shape FROM pictures", {}, "no such column: shape"),
        ("DELETE FROM pictures", {}, "syntax error"),
        ("SELECT * FROM pictures; DROP TABLE pictures", {}, "syntax error"),
        ("SELECT pixels AS image_path, kind AS label FROM pictures", {}, "data.sql.columns.id"),
        (
            "SELECT pixels AS image_path, kind AS label FROM pictures",
            {"columns": {"id": "label"}},
            "stands in more than one row",
        ),
        ("SELECT file AS image_path, kind AS label FROM pictures WHERE n < 0", {}, "no rows"),
    ],
)
def test_a_query_that_does_not_fit_is_explained(
    database: str, query: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(query_of(database, query, **settings))
    with open_source(
        query_of(database, "SELECT file AS image_path, kind AS label FROM pictures")
    ) as source:
        assert len(source) == 80


def test_a_missing_database_is_named_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.db does not exist"):
        open_source(query_of(f"sqlite:///{tmp_path}/nowhere.db", "SELECT 1"))
    assert not (tmp_path / "nowhere.db").exists()


def test_a_password_comes_from_the_environment_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for url in ("me:secret@127.0.0.1:9/x", "127.0.0.1:9/x?password=secret"):
        with pytest.raises(ValueError, match="would be stored with every run"):
            query_of(f"postgresql://{url}", "SELECT 1")
    url = "postgresql://me:{env:DB_PASSWORD}@127.0.0.1:9/x?sslpassword={env:DB_PASSWORD}"
    config = query_of(url, "SELECT 1", fetch={"retries": 1, "backoff_seconds": 0.0})
    with pytest.raises(ConfigError, match="DB_PASSWORD, which is not set"):
        open_source(config)
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    with pytest.raises(DataError, match=r"me:\*\*\*@127.*after 2 attempts") as caught:
        open_source(config)
    assert "hunter2" not in str(caught.value)


def test_a_database_that_is_busy_is_asked_again(images: Path, database: str) -> None:
    file, waits = images.parent / "images.db", []

    def unlock(wait: float) -> None:
        waits.append(wait)
        lock.close()

    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    waiting = Database(f"{database}?timeout=0", FetchConfig(), sleep=unlock)
    assert waiting.run(lambda c: c.scalar(sa.text("SELECT count(*) FROM pictures"))) == 80
    assert len(waits) == 1
    waiting.close()
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    retries = {"retries": 1, "backoff_seconds": 0.0}
    never = query_of(f"{database}?timeout=0", "SELECT file FROM pictures", fetch=retries)
    with pytest.raises(DataError, match="database is locked, after 2 attempts"):
        open_source(never)
    lock.close()


@pytest.mark.parametrize(("state", "n_attempts"), [("57P01", 2), ("57014", 1), ("28P01", 1)])
def test_a_query_that_ran_out_of_time_is_not_run_again(
    database: str, state: str, n_attempts: int
) -> None:
    attempts, stopped = [], type("Stopped", (Exception,), {"sqlstate": state})()

    def fail(connection: sa.Connection) -> None:
        attempts.append(connection)
        raise sa.exc.OperationalError("SELECT 1", {}, stopped)

    with pytest.raises(DataError):
        Database(database, FetchConfig(retries=1), sleep=lambda _: None).run(fail)
    assert len(attempts) == n_attempts


def test_values_of_any_type_are_text_or_refused(images: Path, database: str) -> None:
    with sqlite3.connect(images.parent / "images.db") as connection:
        connection.execute("UPDATE pictures SET kind = CAST(kind AS BLOB)")
        connection.execute("UPDATE pictures SET pixels = NULL WHERE n = 0")
    connection.close()
    names = "CAST(file AS BLOB) AS image_path, kind AS label"
    paths = query_of(database, f"SELECT {names} FROM pictures", root=str(images))
    assert ingest(paths).class_counts == {"disc": 40, "stripe": 40}
    for id_ in ("n * 1.0", "CAST('k' || n AS BLOB)", "CASE n WHEN 1 THEN 'a' ELSE n END"):
        query = f"SELECT {id_} AS id, kind AS label, pixels FROM pictures"
        columns = {"image": "pixels", "id": "id"}
        stored = query_of(database, query, columns=columns, max_unreadable_share=0.1)
        assert len(ingest(stored)) == 79
    fractions = query_of(database, "SELECT file AS image_path, n / 3.0 AS label FROM pictures")
    with pytest.raises(DataError, match=r"row 2: the column 'label' holds 0\.33.* \(float\)"):
        open_source(fractions)


def test_a_missing_driver_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DataError, match=r"psycopg.*make setup EXTRAS=sources"):
        open_source(query_of("postgresql://127.0.0.1:9/x", "SELECT 1"))
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(DataError, match=r"needs a driver: .*MySQLdb.* Install it\."):
        open_source(query_of("mysql://127.0.0.1:9/x", "SELECT 1"))


@pytest.fixture
def postgres(engine: Callable[..., str]) -> Iterator[str]:
    """A private PostgreSQL of Debian, on a socket in a temporary folder."""
    # Debian keeps the server's programs out of PATH.
    debian = sorted(str(path) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = engine("initdb", *debian)
    programs = Path(initdb).resolve().parent
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    base = Path(subprocess.check_output(["mktemp", "-d", "-p", "/tmp"], text=True).strip())
    base.chmod(0o777)
    data = base / "data"

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=base)

    run("initdb", "-D", str(data), "-A", "trust", "-U", "me", "-E", "UTF8")
    options = f"-c listen_addresses='' -k {base} -c fsync=off"
    run("pg_ctl", "-D", str(data), "-o", options, "-l", str(base / "log"), "-w", "start")
    yield f"postgresql://me@/postgres?host={base}"
    run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    shutil.rmtree(base, ignore_errors=True)


@pytest.mark.engines
def test_postgresql_gives_the_dataset_that_the_folder_gives(images: Path, postgres: str) -> None:
    import psycopg

    with psycopg.connect(postgres) as connection:
        connection.execute(
            "CREATE TABLE pictures (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, file text, "
            "kind text, patient int, pixels bytea)"
        )
        for n, path in enumerate(sorted(images.rglob("*.png"))):
            row = (path.relative_to(images).as_posix(), path.parent.name, n // 4, path.read_bytes())
            connection.execute(
                "INSERT INTO pictures (file, kind, patient, pixels) VALUES (%s, %s, %s, %s)", row
            )
    folder = ingest(DataConfig.model_validate({"source": "folder", "path": str(images)}))
    paths = query_of(
        postgres, "SELECT file AS image_path, kind AS label FROM pictures", root=str(images)
    )
    assert ingest(paths).fingerprint == folder.fingerprint
    columns = {"image": "pixels", "label": "kind", "id": "id", "group": "patient"}
    dataset = ingest(query_of(postgres, "SELECT * FROM pictures", columns=columns))
    assert sorted(dataset.manifest["pixels_sha256"]) == sorted(folder.manifest["pixels_sha256"])
    assert dataset.manifest["group"].nunique() == 20
    with pytest.raises(DataError, match="must be at the top level"):
        open_source(
            query_of(postgres, "WITH x AS (DELETE FROM pictures RETURNING *) SELECT * FROM x")
        )
