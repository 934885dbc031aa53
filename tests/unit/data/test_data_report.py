"""The data report: verdicts, the refusal's message, the file format and the page."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cv_factory.data.validation.report import DataReport, ExpectationResult
from cv_factory.errors import ArtifactError, DataRejectedError

_EVIL = "<script>alert('x')</script>&\"quoted\""


def _result(name: str, severity: str, success: bool, n_offending: int = 0) -> ExpectationResult:
    return ExpectationResult(
        name=name,
        severity=severity,  # type: ignore[arg-type]
        success=success,
        observed="found this",
        limit="allowed that",
        message="Something holds.",
        offending_ids=tuple(f"id{n}" for n in range(min(n_offending, 20))),
        n_offending=n_offending,
    )


def _report(*results: ExpectationResult) -> DataReport:
    return DataReport(
        expectations=results,
        n_images=30,
        class_counts={"cat": 20, _EVIL: 10},
        split_counts={"train": {"cat": 15, _EVIL: 5}, "test": {"cat": 5, _EVIL: 5}},
        unreadable=((f"/data/{_EVIL}.png", "truncated"),),
    )


def test_warnings_do_not_refuse_and_errors_do() -> None:
    warned = _report(_result("a", "error", True), _result("b", "warning", False))
    assert warned.ok
    assert warned.require_ok() is warned
    assert [failure.name for failure in warned.failures] == ["b"]
    refused = _report(_result("b", "warning", False), _result("a", "error", False))
    assert not refused.ok
    assert [failure.name for failure in refused.failures] == ["a", "b"]


def test_the_refusal_names_expectations_images_and_what_to_do() -> None:
    report = _report(
        _result("first", "error", False, n_offending=3),
        _result("second", "error", False, n_offending=1000),
        _result("third", "warning", False),
        _result("fourth", "error", True),
    )
    with pytest.raises(DataRejectedError) as caught:
        report.require_ok()
    message = str(caught.value)
    assert "2 of 4 expectations failed" in message
    assert "first: Something holds. Found found this, allowed allowed that." in message
    assert "Concerns: id0, id1, id2.\n" in message
    assert "id4 and 995 more" in message
    assert "'validation'" in message
    assert "third" not in message
    assert "fourth" not in message
    assert caught.value.exit_code == 3


def test_a_report_survives_saving_and_loading(tmp_path: Path) -> None:
    report = _report(_result("a", "error", False, n_offending=25), _result("b", "warning", True))
    report.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data_report.json"]
    assert DataReport.load(tmp_path) == report


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("format_version", 2, "format version 2"),
        ("kind", "dataset", "expected a 'data_report'"),
    ],
)
def test_a_header_of_something_else_is_refused(
    tmp_path: Path, key: str, value: object, expected: str
) -> None:
    _report().save(tmp_path)
    path = tmp_path / "data_report.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, key: value}))
    with pytest.raises(ArtifactError, match=expected):
        DataReport.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        {"n_images": None},
        {"expectations": None},
        {"expectations": [{"name": "a"}]},
        {"expectations": [{"name": "a", "severity": "mild"}]},
        {"class_counts": 3},
        {"unreadable": [["only one"]]},
        {"split_counts": {"train": 3}},
    ],
)
def test_a_damaged_body_is_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    _report(_result("a", "error", True)).save(tmp_path)
    path = tmp_path / "data_report.json"
    header = json.loads(path.read_text())
    header["body"].update(damage)
    path.write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="damaged"):
        DataReport.load(tmp_path)


def test_a_missing_key_is_refused(tmp_path: Path) -> None:
    _report().save(tmp_path)
    path = tmp_path / "data_report.json"
    header = json.loads(path.read_text())
    del header["body"]["class_counts"]
    path.write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="class_counts"):
        DataReport.load(tmp_path)


class _Page(HTMLParser):
    """Collects tags, attributes and text; fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def close(self) -> None:
        super().close()
        assert self._open == []


def _page(report: DataReport) -> _Page:
    page = _Page()
    page.feed(report.to_html())
    page.close()
    return page


def test_the_page_escapes_all_data_and_needs_no_network() -> None:
    hostile = ExpectationResult(
        name=_EVIL, severity="error", success=False, observed=_EVIL, limit=_EVIL, message=_EVIL,
        offending_ids=(_EVIL,), n_offending=2,
    )  # fmt: skip
    page = _page(_report(hostile))
    assert page.text.count(_EVIL) == 5 + 1 + 1  # the expectation, the class, the unreadable image
    assert {"script", "link", "img", "iframe", "a"}.isdisjoint(page.tags)
    assert {"src", "href", "onload"}.isdisjoint(name for name, _ in page.attributes)
    html = _report(hostile).to_html()
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_the_page_shows_verdicts_worst_first() -> None:
    report = _report(
        _result("fulfilled", "error", True),
        _result("warned", "warning", False),
        _result("broken", "error", False, n_offending=1000),
    )
    text = _page(report).text
    assert text.index("broken") < text.index("warned") < text.index("fulfilled")
    assert "Refused" in text
    assert "id19" in text
    assert "and 980 more" in text


def test_the_page_of_an_empty_report() -> None:
    text = _page(DataReport((), 0, {}, {})).text
    assert "Passed" in text
    assert "Classes" not in text
