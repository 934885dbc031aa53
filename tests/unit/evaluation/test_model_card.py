"""The model card: complete, self-contained, and deaf to what names and settings try to inject."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from cv_factory.config.card import CardConfig
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.gates import GateConfig
from cv_factory.evaluation.evaluate_probabilities import evaluate
from cv_factory.evaluation.evaluation import Metric
from cv_factory.evaluation.gates import Evidence, judge
from cv_factory.evaluation.reports.model_card import (
    CardContent,
    DataCheck,
    render_html,
    render_markdown,
)
from cv_factory.inference.reference import EstimatorError
from cv_factory.reporting import html_page, markdown_page
from cv_factory.reporting.page import Header, Sections, Table

EVIL = (
    '"><script>alert(1)</script><img src=x onerror=alert(1)> | [a](http://b.c) `'
    "*_c_* ~~d~~ &lt; e_f"
)


def content(names=("cat", "dog", "elk"), **changes) -> CardContent:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    scores = rng.random((60, 3)) + 0.5 * np.eye(3)[labels]
    evaluation = evaluate(
        scores / scores.sum(axis=1, keepdims=True),
        labels,
        [str(i) for i in range(60)],
        names,
        "f" * 64,
        EvaluateConfig(bootstrap_samples=100, top_k=2),
    )
    gates = [
        GateConfig(metric="accuracy", min=0.1),
        GateConfig(metric="macro_f1", min=1.0),
        GateConfig(metric="roc_auc", max_drop_vs_production=0.1),
    ]
    card = CardContent(
        model_name="pets",
        version="7",
        stage="staging",
        description="Tells pets apart.",
        model={"kind": "small_cnn", "parameters": 12345},
        data={"images": 1797, "source": "folder"},
        data_verdict="passed with 1 warning",
        data_checks=[DataCheck("duplicates at most 5 %", "warning", "6.1 %")],
        training={"learning_rate": 0.004, "horizontal_flip": False, "limit": None},
        evaluation=evaluation,
        verdicts=judge(gates, Evidence(evaluation)),
        lineage={"git_commit": "8ea712a", "dirty": True, "data hash": "cd34"},
        packages={"numpy": "2.4.6"},
    )
    return replace(card, **changes)


class Page(HTMLParser):
    """Collects the tags, attributes and text of a page, and checks that tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_markdown_wording(golden):
    errors = [
        EstimatorError("cbpe", "none", 0, 500, 0.97, 0.965),
        EstimatorError("cbpe", "gaussian_blur", 1, 500, 0.9, 0.89),
        EstimatorError("cbpe", "gaussian_blur", 2, 500, 0.8, 0.812),
    ]
    golden("model_card.md", render_markdown(content(estimator_errors=errors)))


@pytest.mark.parametrize("render", [render_markdown, render_html])
def test_the_card_tells_everything(render):
    card = content(
        statements=CardConfig(
            owner="Ada", intended_use="Cats only.", out_of_scope_use="Not at night."
        ),
        overrides=["macro_f1 at least 1: by Ada, known twins"],
        warnings=["validation accuracy swings"],
    )
    text = render(card).replace("\\", "")
    for expected in (
        *("pets", "version", "7", "staging", "Tells pets apart.", "small_cnn", "12,345"),
        *("1,797", "passed with 1 warning", "duplicates at most 5 %", "6.1 %"),
        *("learning_rate", "0.004", "horizontal_flip", "git_commit", "8ea712a", "dirty"),
        *("numpy 2.4.6", "f" * 64, "Cats only.", "Not at night.", "60 test images", "95 %"),
        *(
            "1 of 3 gates passed, 1 failed, 1 overridden, 1 not applicable",
            "not applicable",
            "failed",
        ),
        "there is no production model to compare with",
        *("macro_f1 at least 1: by Ada, known twins", "validation accuracy swings"),
        "set register.card.ethical_considerations, register.card.data_statement, and run",
    ):
        assert expected in text, expected
    for metric in card.evaluation.metrics.values():
        for number in (metric.value, metric.low, metric.high):
            assert f"{number:.4f}" in text
    for row in card.evaluation.per_class:
        assert f"{row.f1:.4f}" in text


def test_the_page_is_well_formed_and_loads_nothing():
    page = Page(render_html(content(pictures={"Curves": _a_png()})))
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "a", "object", "base"}
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 7
    for source in images:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert "http" not in render_html(content()).replace("http-equiv", "")


def _a_png() -> bytes:
    png = io.BytesIO()
    Image.new("RGB", (3, 3)).save(png, "PNG")
    return png.getvalue()


def test_nothing_handed_in_becomes_markup():
    evil = content(
        names=(EVIL, "dog", "elk"),
        model_name=EVIL,
        version=EVIL,
        stage=EVIL,
        description=EVIL,
        model={EVIL: EVIL},
        data={EVIL: EVIL},
        data_verdict=EVIL,
        data_checks=[DataCheck(EVIL, EVIL, EVIL)],
        training={EVIL: EVIL},
        lineage={EVIL: EVIL},
        packages={EVIL: EVIL},
        statements=CardConfig(**dict.fromkeys(CardConfig.model_fields, EVIL)),
        overrides=[EVIL],
        warnings=[EVIL],
        pictures={EVIL: _a_png()},
    )
    page = Page(render_html(evil))
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    sources = {attributes["src"][:5] for tag, attributes in page.tags if tag == "img"}
    assert sources == {"data:"}
    assert sum(EVIL in text for text in page.texts) >= 12

    markdown = render_markdown(evil)
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    inline = [token for token in parser.parse(markdown) if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children}
    assert kinds == {"text", "strong_open", "strong_close"}
    texts = ["".join(child.content for child in token.children) for token in inline]
    assert sum(EVIL in text for text in texts) >= 12
    assert "e\\_f" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 4, 5, 6}


def test_a_line_break_does_not_break_a_markdown_table():
    card = content(data_checks=[DataCheck("a\nb", "passed", "c\r\n# d")])
    assert "| a b | passed | c \\# d |" in render_markdown(card)


def test_what_could_not_be_computed_says_why():
    base = content()
    metrics = {
        **base.evaluation.metrics,
        "roc_auc": Metric(None, reason="no test images of 'elk'"),
    }
    card = replace(base, evaluation=replace(base.evaluation, metrics=metrics))
    assert "| ROC AUC | n/a | no test images of 'elk' |" in render_markdown(card)
    assert "no test images of &#x27;elk&#x27;" in render_html(card)


def test_a_card_without_stage_gates_or_errors_says_so():
    base = content(stage=None, verdicts=())
    evaluation = replace(base.evaluation, confusion=np.diag([20, 20, 20]))
    markdown = render_markdown(replace(base, evaluation=evaluation))
    assert "Stage: **none** · no gates configured" in markdown
    assert "No gates are configured." in markdown
    assert "No test image was taken for another class." in markdown
    assert "## Pictures" not in markdown


def test_equal_content_gives_equal_bytes():
    assert render_html(content()) == render_html(content())


def test_the_page_leads_with_what_a_person_decides_on_and_folds_the_rest():
    page = render_html(content())
    open_part, folded = page.split("<details>", 1)
    for heading in ("Verdict", "Use", "Weak points", "Data statement"):
        assert f"<h2>{heading}</h2>" in open_part
    assert open_part.index("not stated") > open_part.index("macro_f1 at least 1")
    for heading in ("Model", "Metrics", "Confusion", "Training", "Lineage"):
        assert f"<summary>{heading}</summary>" in folded
    assert "<img" not in open_part


def test_a_complete_card_warns_of_nothing():
    statements = CardConfig(**dict.fromkeys(CardConfig.model_fields, "said"))
    page = render_markdown(content(statements=statements, data_checks=()))
    assert "| warning |" not in page
    assert "not stated" not in page


@pytest.mark.usefixtures("no_installed_fonts")
def test_a_name_that_pictures_cannot_write_stands_beside_its_stand_in():
    name = "\U00010980"  # Meroitic
    sections = dict(content(names=("$5 & $10", name, "elk")).quality_sections)
    assert Table(("in pictures", "class"), (("class 1", name),)) in sections["Names in pictures"]
    assert "Names in pictures" not in dict(content().quality_sections)


def test_a_long_table_scrolls_on_the_page_and_is_cut_in_markdown():
    rows = tuple((f"row {i}", i) for i in range(100))
    sections: Sections = [("Rows", [Table(("name", "images"), rows)])]
    page = html_page.render_html("Rows", Header("Rows"), [], sections)
    classes = [attributes.get("class") for _, attributes in Page(page).tags]
    assert classes.count("wide long") == 1
    assert "row 99" in page
    markdown = markdown_page.render_markdown("Rows", "", sections)
    assert "row 59" in markdown
    assert "row 60" not in markdown
    assert "and 40 more rows" in markdown
