"""The section ``data``: which images to read, from where, and what to turn them into.

``source`` names the kind of source; what only one kind needs stands in a section of its name.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from cv_factory.config.plugins import plugin_name_type
from cv_factory.config.secrets import Location, StorageOptions, check_headers, check_url
from cv_factory.config.section import Fraction, Section

if TYPE_CHECKING:
    SourceName: TypeAlias = str
else:
    SourceName = plugin_name_type("cv_factory.data.sources", "source")
#: The sections that each kind of source reads; other kinds read none.
_SOURCE_SECTIONS: dict[str, tuple[str, ...]] = {
    "torchvision": ("torchvision",),
    "folder": ("folder",),
    "manifest": ("manifest", "fetch"),
    "sql": ("sql", "fetch"),
    "http": ("http", "fetch"),
    "dvc": ("dvc", "folder", "manifest"),
}
#: URL schemes that images in tables can have.
ImageScheme: TypeAlias = Literal["http", "https", "s3", "gs", "az", "memory"]
_SECTIONS = ("torchvision", "folder", "manifest", "sql", "http", "dvc", "fetch")
_NEEDS_PATH = ("folder", "manifest", "http", "dvc")
_HAS_NO_PATH = ("digits", "fashion_mnist", "mnist", "cifar10", "torchvision", "sql")


class ColumnsConfig(Section):
    """Names of the columns of a manifest, a query or a listing."""

    image: str = Field("image_path", description="path or URL of the image; in SQL also its bytes")
    label: str | None = Field("label", description="name of the class; null for unlabelled images")
    id: str | None = Field(None, description="unique and stable; the image's path where not given")
    split: str | None = Field(
        "split",
        description="train, validation or test; the column 'split' need not be there; null for "
        "none",
    )
    group: str | None = Field(
        "group",
        description="images of one group stay in one part of the split (a patient, a video); "
        "the column 'group' need not be there; null for none",
    )


class FolderConfig(Section):
    """Layout of a folder of images; by default one subfolder a class."""

    layout: Literal["classes", "parts"] | None = Field(
        None,
        description="classes: CLASS/…; parts: PART/CLASS/…, with train, validation and test (or "
        "val, dev, …) as parts; by default classes, where no folder looks like a part",
    )
    pattern: str | None = Field(
        None,
        description="regular expression over the path below the folder, with the group "
        "(?P<label>…) and optionally (?P<split>…) and (?P<group>…)",
    )

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            names = set(re.compile(pattern).groupindex)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        if "label" not in names:
            raise ValueError(r"name the class by a group, as in (?P<label>[a-z]+)_\d+\.jpg")
        if unknown := names - {"label", "split", "group"}:
            raise ValueError(f"unknown group {min(unknown)!r}; groups are label, split and group")
        return pattern

    @model_validator(mode="after")
    def _check_layout(self) -> "FolderConfig":
        if self.pattern is not None and self.layout is not None:
            raise ValueError("give 'pattern' or 'layout', not both")
        return self


class TableConfig(Section):
    """Settings shared by all tables of images."""

    columns: ColumnsConfig = ColumnsConfig()
    allowed_schemes: list[ImageScheme] = Field(
        [], description="URL schemes that an image may have; others are refused"
    )


class ManifestConfig(TableConfig):
    """A CSV or Parquet table with one row an image."""

    root: Location | None = Field(
        None,
        description="folder or URL that relative paths start from, and that absolute ones must lie "
        "below; the manifest's own folder",
    )
    encoding: str | None = Field(
        None, description="of a CSV, such as cp1252 or utf-16; UTF-8 where not given"
    )

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        try:
            "".encode(encoding or "utf-8")
        except LookupError:
            raise ValueError("unknown encoding; Python's names: utf-8, cp1252, utf-16, …") from None
        return encoding


class SqlConfig(TableConfig):
    """A query with one row an image; the image is a path, a URL, or its bytes."""

    url: str = Field(
        description="SQLAlchemy URL; {env:NAME} is read from the environment, as a password must be"
    )
    query: str = Field(min_length=1, description="one SELECT")
    root: Location | None = Field(
        None,
        description="folder or URL that relative paths start from, and that absolute ones must lie "
        "below",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if "://" not in url:
            raise ValueError("a SQLAlchemy URL is needed, such as sqlite:///images.db")
        return check_url(url)


class HttpConfig(Section):
    """A listing of images over HTTP, as JSON objects or CSV rows, page by page."""

    columns: ColumnsConfig = ColumnsConfig(image="image_url")
    format: Literal["json", "csv"] | None = Field(
        None, description="by the response's content type if not given"
    )
    items_key: str | None = Field(
        None, description="JSON: where the list of images stands, such as data.images"
    )
    next_key: str | None = Field(
        None, description="JSON: where the next page's URL stands; also read: Link: <…>; rel=next"
    )
    page_parameter: str | None = Field(
        None, description="query parameter that counts pages from 1 until one is empty"
    )
    max_pages: int = Field(10_000, ge=1)

    @model_validator(mode="after")
    def _check_paging(self) -> "HttpConfig":
        if self.next_key and self.page_parameter:
            raise ValueError("give one of 'next_key' and 'page_parameter', not both")
        if self.format == "csv" and (self.items_key or self.next_key):
            raise ValueError("'items_key' and 'next_key' belong to format json, not to csv")
        return self


class FetchConfig(Section):
    """Limits and retries of downloads over HTTP and of database queries."""

    timeout_seconds: float = Field(10.0, gt=0, le=600, description="to connect, and between bytes")
    total_seconds: float = Field(60.0, gt=0, le=3600, description="for one answer as a whole")
    retries: int = Field(3, ge=0, le=3, description="after failures that may pass")
    backoff_seconds: float = Field(0.5, ge=0, le=60, description="first wait; it doubles, +-50 %")
    max_wait_seconds: float = Field(
        60.0, ge=0, le=3600, description="a longer Retry-After of the server is an error"
    )
    connections: int = Field(8, ge=1, le=64)
    allow_private_addresses: bool = Field(
        False, description="also fetch from private, loopback and link-local addresses"
    )
    headers: dict[str, str] = Field(
        {},
        description="sent to the listing's own host only; {env:NAME} is read from the environment",
    )

    @model_validator(mode="after")
    def _check_times(self) -> "FetchConfig":
        if self.timeout_seconds > self.total_seconds:
            raise ValueError(
                f"timeout_seconds is {self.timeout_seconds:g}, longer than total_seconds, "
                f"{self.total_seconds:g}: lower it"
            )
        return self

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers)


class TorchvisionConfig(Section):
    """A data set of torchvision.datasets."""

    name: str = Field(
        pattern=r"^[A-Z][A-Za-z0-9]*$", description="class name in torchvision, such as SVHN"
    )
    download: bool = True


class DvcConfig(Section):
    """A path that DVC tracks."""

    repo: Location = Field(".", description="path or URL of the Git repository")
    revision: str | None = Field(
        None, description="commit, branch or tag; the working tree where not given"
    )


class DataConfig(Section):
    """Images to read, and the size and channels to convert them to."""

    source: SourceName = Field(
        "digits",
        description="digits (ships in scikit-learn), fashion_mnist, mnist, cifar10, torchvision "
        "(any other set by name), folder (one subfolder a class), manifest (CSV or Parquet), sql, "
        "http, dvc",
    )
    path: Location | None = Field(
        None,
        description="folder and manifest: path or URL (s3://…); http: the listing's URL; "
        "dvc: folder or manifest in the repository; {env:NAME} in a URL is read from the "
        "environment",
    )
    additional: Location | None = Field(
        None,
        description="manifest of further images of the same classes, such as labelled ones from "
        "the field, with its column split; the images of the source stay in their parts",
    )
    data_dir: str | None = Field(
        None, description="where named data sets lie (also --data-dir, $CV_FACTORY_DATA)"
    )
    folder: FolderConfig | None = None
    manifest: ManifestConfig | None = None
    sql: SqlConfig | None = None
    http: HttpConfig | None = None
    torchvision: TorchvisionConfig | None = None
    dvc: DvcConfig | None = None
    fetch: FetchConfig | None = None
    storage_options: StorageOptions = Field(
        {},
        description="for fsspec file systems, such as endpoint_url or anon of s3; {env:NAME} is "
        "read from the environment, as secrets must be",
    )
    height: Annotated[int, Field(ge=4, le=4096)] | None = Field(
        None, description="pixels; inferred from the images where not given"
    )
    width: Annotated[int, Field(ge=4, le=4096)] | None = Field(
        None, description="pixels; inferred from the images where not given"
    )
    side: Annotated[int, Field(ge=4, le=4096)] | None = Field(
        None,
        description="height and width where they are inferred and the images have several sizes, "
        "or are larger than 128 pixels; 64 where not given",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 (grey) or 3 (RGB); inferred from the images where not given"
    )
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="stored values that become black and white in images of more than 8 bits, such "
        "as [0, 4095]; what the file's format defines where not given",
    )
    max_pixels: int = Field(
        50_000_000, ge=1, description="images with more pixels are refused before decoding"
    )
    max_bytes: int = Field(
        100_000_000, ge=1, description="files with more bytes are refused before they are read"
    )
    max_aspect_ratio: float = Field(
        50.0, ge=1.0, description="longer side / shorter side; above it an image is refused"
    )
    max_unreadable_share: Fraction = Field(
        0.01, description="share of images that may be unreadable before the run stops"
    )
    exclude: Location | None = Field(
        None,
        description="CSV or Parquet table whose column id names images that are left out, such as "
        "run.py labels suspicious writes it",
    )
    drop_classes_below: Annotated[int, Field(ge=2)] | None = Field(
        None, description="leave out classes with fewer images than this, and say which"
    )
    follow_links: bool = Field(
        False,
        description="read symbolic links that lead out of a local folder, and links to folders",
    )
    limit: Annotated[int, Field(ge=2)] | None = Field(
        None, description="read only this many images, evenly spread over the source"
    )

    @field_validator("value_range")
    @classmethod
    def _check_value_range(cls, value_range: list[float] | None) -> list[float] | None:
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError("give the value of black, then the larger value of white: [0, 4095]")
        return value_range

    @model_validator(mode="after")
    def _check_source(self) -> "DataConfig":
        if self.source in _NEEDS_PATH and not self.path:
            raise ValueError(
                f"source {self.source!r} needs 'path': --set data.path={_example(self)}"
            )
        if self.source in _HAS_NO_PATH and self.path:
            raise ValueError(
                f"'path' belongs to source 'folder', 'manifest', 'http' or 'dvc', not to "
                f"{self.source!r} (named data sets are looked for in 'data_dir')"
            )
        for section in _SECTIONS:
            if getattr(self, section) is not None and section not in self._sections:
                owners = [s for s, sections in _SOURCE_SECTIONS.items() if section in sections]
                raise ValueError(
                    f"the section {section!r} belongs to source {' or '.join(map(repr, owners))}, "
                    f"not to {self.source!r}"
                )
        for section in {"sql", "torchvision"} & {self.source}:
            if getattr(self, section) is None:
                needed = {"sql": "url and query", "torchvision": "name"}[section]
                raise ValueError(f"source {section!r} needs the section {section!r} with {needed}")
        if (self.height is None) != (self.width is None):
            raise ValueError("give both 'height' and 'width', or neither")
        return self

    @property
    def _sections(self) -> tuple[str, ...]:
        return _SOURCE_SECTIONS.get(self.source, ())

    @property
    def additional_config(self) -> "DataConfig":
        """Section for the images of ``additional``, which is given."""
        shared = ("storage_options", "value_range", "max_pixels", "max_bytes", "max_aspect_ratio")
        settings = {name: getattr(self, name) for name in (*shared, "max_unreadable_share")}
        return DataConfig(source="manifest", path=self.additional, **settings)

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the settings that can change a result: not where named sets lie."""
        fields = self.model_dump(mode="json", exclude={"data_dir": True})
        # Left out where not given: predictors of earlier releases keep their fingerprint.
        for name in ("side", "exclude"):
            if fields[name] is None:
                del fields[name]
        return fields


def _example(config: DataConfig) -> str:
    examples = {"manifest": "LABELS.csv", "http": "https://HOST/images.json", "dvc": "DIR"}
    return examples.get(config.source, "FOLDER")
