"""The ZenML dashboard in a real browser: the whole lineage is there, with pictures.

Set ``CV_FACTORY_SCREENSHOTS=FOLDER`` to keep what the browser saw.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cv_factory.processes.ports import find_free_port
from tests.support.project import Project
from tests.support.store import snapshot

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.engines

#: The dashboard asks a new user a survey before it shows anything.
_SKIP_SURVEY = """
from zenml.client import Client

client = Client()
client.update_user(
    client.active_user.id,
    updated_full_name="Tester",
    updated_email="tester@example.org",
    updated_email_opt_in=False,
    updated_metadata={"finished_onboarding_survey": True},
)
run = client.list_pipeline_runs(sort_by="desc:created", size=1).items[0]
print("RUN", run.id)
"""
_BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def dashboard(project: Project) -> Iterator[str]:
    """Serve the project's dashboard on a free port."""
    port = find_free_port()
    project.environment["ZENML_AUTO_OPEN_DASHBOARD"] = "false"
    project.zenml("login", "--local", "--port", str(port), timeout=240)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        project.zenml("logout", "--local")


def preview(page: "Page", artifact: str) -> None:
    """Click an artifact in the lineage and load its picture or page."""
    page.get_by_text(artifact, exact=True).first.click(timeout=60_000)
    page.get_by_role("tab", name="Visualization").last.click(timeout=60_000)
    page.get_by_role("button", name="Load Preview").click(timeout=60_000)


@pytest.mark.timeout(600)
def test_the_dashboard_shows_lineage_and_pictures(
    trained_project: Project, engine: Callable[..., str], tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    chromium = engine("chromium", "chromium-browser")
    shots = Path(os.environ.get("CV_FACTORY_SCREENSHOTS", tmp_path))
    match = re.search(r"RUN (\S+)", trained_project.warm("-c", _SKIP_SURVEY).stdout)
    assert match is not None
    with dashboard(trained_project) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        # The dashboard's own page asks for fonts and statistics elsewhere; here nothing leaves.
        outside = re.compile(rf"^(?!{re.escape(url)}|data:|blob:)")
        page.route(outside, lambda route: route.abort())
        page.goto(f"{url}/projects/default/runs/{match[1]}", wait_until="domcontentloaded")
        for name in ("ingest", "validate_data", "trained_model", "predictor", "registration"):
            expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=90_000)
        page.screenshot(path=shots / "lineage.png")
        preview(page, "dataset")
        picture = page.get_by_role("dialog").locator("img").last
        expect(picture).to_be_visible(timeout=60_000)
        page.screenshot(path=shots / "dataset.png")
        page.get_by_role("button", name="Close details").click()
        preview(page, "registration")
        card = page.frame_locator("iframe").first
        expect(card.get_by_text("accuracy at least 0.95")).to_be_visible(timeout=60_000)
        page.screenshot(path=shots / "card_in_dashboard.png")
        browser.close()


def test_the_pages_need_no_network(
    trained_project: Project, engine: Callable[..., str], tmp_path: Path
) -> None:
    from playwright.sync_api import Request, sync_playwright

    chromium = engine("chromium", "chromium-browser")
    shots = Path(os.environ.get("CV_FACTORY_SCREENSHOTS", tmp_path))
    steps = snapshot(trained_project)["steps"]
    report = Path(steps["validate_data"]["outputs"]["data_report"]["uri"])
    pages = {
        "model_card": Path(steps["register"]["outputs"]["registration"]["uri"]) / "card.html",
        "data_report": report / "report.html",
    }
    requests: list[Request] = []

    def record(request: Request) -> None:
        requests.append(request)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_OPTIONS)
        for name, file in pages.items():
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.on("request", record)
            page.goto(file.as_uri())
            assert page.locator("h1").is_visible()
            assert [r for r in requests if not r.url.startswith(("file:", "data:"))] == []
            page.screenshot(path=shots / f"{name}.png", full_page=True)
        browser.close()
