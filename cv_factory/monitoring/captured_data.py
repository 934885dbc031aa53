"""Reader of SageMaker's captured data: JSON lines with the answers of an endpoint.

The answers have neither features nor statistics of the images, whose bytes are not read.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from cv_factory.artifacts.filesystems import describe_error, get_filesystem_errors
from cv_factory.data.storage.stores import open_filesystem
from cv_factory.errors import ConfigError
from cv_factory.monitoring.prediction_table import parse_log


def read_captured_data(path: str, class_names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield a table for each file of captured data below a folder.

    Args:
        path: Folder or URL.
        class_names: Order of the classes.

    Raises:
        ConfigError: There are no such files, or one cannot be read or is none.
        SourceError: No file system handles the URL.
    """
    url = path if "://" in path else f"file://{path}"
    filesystem, folder = open_filesystem(url, {})
    errors = get_filesystem_errors(filesystem)
    try:
        names = sorted(n for n in filesystem.find(folder) if n.endswith(".jsonl"))
        contents = ((name, filesystem.cat_file(name)) for name in names)
        for name, content in contents:
            yield parse_log(_convert(name, content), class_names)[0]
    except errors as error:
        raise ConfigError(f"{path} cannot be read ({describe_error(error)}).") from None
    if not names:
        raise ConfigError(f"{path} holds no captured data (*.jsonl).")


def _convert(name: str, content: bytes) -> bytes:
    """Return captured records as lines of a prediction log.

    Raises:
        ConfigError: The file is no captured data.
    """
    try:
        lines = [
            line for text in content.splitlines() for line in _convert_record(json.loads(text))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} is no captured data of an endpoint ({type(error).__name__}: {error})."
        ) from None
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _convert_record(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    capture, event = record["captureData"], record["eventMetadata"]
    output = capture.get("endpointOutput")
    if output is None:
        return
    data = output["data"]
    answer = json.loads(base64.b64decode(data) if output["encoding"] == "BASE64" else data)
    common = {"time": event["inferenceTime"], "request_id": event.get("inferenceId")}
    common["request_id"] = common["request_id"] or event["eventId"]
    if "predictions" not in answer:
        # Problem details: the request was refused.
        return
    common |= {"model": answer["model"], "version": str(answer["version"])}
    for prediction in answer["predictions"]:
        names = ("id", "label", "probabilities", "unfamiliarity")
        yield common | {field: prediction.get(field) for field in names}
