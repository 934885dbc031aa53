"""The pages for people, in a real browser that reaches nothing but the service.

Set ``CV_FACTORY_SCREENSHOTS=FOLDER`` to keep what the browser saw.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.digits_service import ServiceProcess, digit_png, digits_bundle

pytestmark = pytest.mark.engines

_BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def test_a_person_drops_an_image_and_sees_probabilities(
    engine: Callable[..., str], tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    chromium = engine("chromium", "chromium-browser")
    shots = Path(os.environ.get("CV_FACTORY_SCREENSHOTS", tmp_path))
    (tmp_path / "bundle").mkdir()
    digits_bundle().save(tmp_path / "bundle")
    (tmp_path / "digit.png").write_bytes(digit_png())
    (tmp_path / "wrong.png").write_bytes(b"no image")
    service = ServiceProcess(tmp_path / "bundle", tmp_path / "output")
    try:
        service.wait()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_OPTIONS)
            page = browser.new_page(viewport={"width": 900, "height": 900})
            asked: list[str] = []
            complaints: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(service.url)
            expect(page.locator("h1")).to_have_text("digits predictor, version 7")
            page.locator("#file").set_input_files(tmp_path / "digit.png")
            expect(page.locator("#probabilities tr")).to_have_count(10)
            best = page.locator("#label").inner_text()
            expect(page.locator("#probabilities tr").first).to_contain_text(best)
            expect(page.locator("#details")).to_contain_text("digits version 7")
            page.screenshot(path=shots / "try_page.png", full_page=True)
            assert complaints == []
            page.locator("#file").set_input_files(tmp_path / "wrong.png")
            expect(page.locator("#problem")).to_contain_text("not an image")
            expect(page.locator("#answer")).to_be_hidden()
            complaints.clear()
            page.goto(f"{service.url}/docs")
            expect(page.get_by_text("/predict/batch", exact=True)).to_be_visible()
            page.screenshot(path=shots / "docs_page.png", full_page=True)
            assert complaints == []
            assert [
                url for url in asked if not url.startswith((service.url, "blob:", "data:"))
            ] == []
            browser.close()
    finally:
        service.stop()
