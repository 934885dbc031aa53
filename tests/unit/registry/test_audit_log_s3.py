"""Audit log and alert log in a bucket of a real S3 server (SeaweedFS), through ZenML's store."""

import json
import threading
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from cv_factory.errors import ArtifactError
from cv_factory.monitoring.alert import Alert
from registry.alert_log import AlertLog, LoggedAlert
from registry.audit.log import AuditEntry, AuditLog, LogConflictError
from registry.audit.log_files import LogFiles, open_log_files
from tests.support.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.engines


def files(url: str, secret: str = "secret") -> LogFiles:
    """The files of the model's log as a process of its own would open them."""
    from zenml.enums import StackComponentType
    from zenml.integrations.s3.artifact_stores import S3ArtifactStore
    from zenml.integrations.s3.flavors import S3ArtifactStoreConfig

    now = datetime.now(UTC)
    config = S3ArtifactStoreConfig(
        path=f"s3://{BUCKET}/factory", key="key", secret=secret, client_kwargs={"endpoint_url": url}
    )
    store = S3ArtifactStore(
        name="s3", id=uuid4(), config=config, flavor="s3", type=StackComponentType.ARTIFACT_STORE,
        user=None, created=now, updated=now,
    )  # fmt: skip
    return open_log_files(store, "digits")


def race(
    url: str, entries: tuple[AuditEntry, ...]
) -> tuple[list[AuditEntry], list[LogConflictError]]:
    """Let three writers, each with a connection of its own, append to the log at once."""
    won: list[AuditEntry] = []
    lost: list[LogConflictError] = []
    gate = threading.Barrier(3)

    def write(who: str) -> None:
        log = AuditLog(files(url))
        gate.wait()
        try:
            won.append(log.append(entries, "intent", who, "better", {}))
        except LogConflictError as error:
            lost.append(error)

    threads = [threading.Thread(target=write, args=(f"writer {i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, lost


def test_of_many_writers_one_gets_the_number_and_an_edit_shows(s3: S3Server) -> None:
    log = AuditLog(files(s3.url))
    assert log.entries() == ()
    first = log.append((), "registered", "Ada", "Größe: 数字", {"version": 1})
    assert AuditLog(files(s3.url)).entries() == (first,)

    for n_entries in range(1, 4):
        won, lost = race(s3.url, log.entries())
        assert (len(won), len(lost)) == (1, 2)
        assert f"Another process wrote entry {n_entries + 1}" in str(lost[0])
        assert log.entries()[-1] == won[0]

    # A request that was sent again because its answer was lost finds what it made itself.
    files(s3.url).create("00000004.json", log.entries()[-1].to_bytes())
    with pytest.raises(FileExistsError):
        files(s3.url).create("00000004.json", b"{}")

    client, key = s3.client(), "factory/cv_factory_audit/digits/00000003.json"
    stored = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    edited = json.dumps(json.loads(stored) | {"who": "Eve"}).encode()
    client.put_object(Bucket=BUCKET, Key=key, Body=edited)
    with pytest.raises(ArtifactError, match="changed after it was written"):
        AuditLog(files(s3.url)).entries()
    client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(ArtifactError, match="entry 3 is missing"):
        log.entries()
    client.put_object(Bucket=BUCKET, Key=key, Body=stored)
    assert len(log.entries()) == 4

    refused = f"s3://{BUCKET}/factory/cv_factory_audit/digits cannot"
    with pytest.raises(ArtifactError, match=refused):
        files(s3.url, secret="wrong").create("00000001.json", b"{}")
    with pytest.raises(ArtifactError, match="artifact store of the active stack"):
        files("http://127.0.0.1:9").names()


def test_of_many_writers_one_announces_an_incident(s3: S3Server) -> None:
    now, gate = datetime.now(UTC), threading.Barrier(3)
    entries: list[LoggedAlert | None] = []

    def announce() -> None:
        log = AlertLog(files(s3.url))
        gate.wait()
        entries.append(log.add(Alert("drift/digits", "firing", "warning", "It drifts"), now))

    threads = [threading.Thread(target=announce) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (entry,) = filter(None, entries)
    log = AlertLog(files(s3.url))
    assert log.pending() == log.open_incidents() == [entry]
    log.mark(1, "sent")
    log.mark(1, "sent")
    assert AlertLog(files(s3.url)).n_waiting == 0
