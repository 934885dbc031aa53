"""The pages for people, in a real browser that reaches nothing but the service.

Set ``CV_FACTORY_SCREENSHOTS=FOLDER`` to keep screenshots.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.digits_service import DigitsService

pytestmark = pytest.mark.engines

_BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def test_the_page_predicts_an_image_and_the_documentation_is_shown(
    engine: Callable[..., str], service: DigitsService, tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    chromium = engine("chromium", "chromium-browser")
    screenshots = Path(os.environ.get("CV_FACTORY_SCREENSHOTS", tmp_path))
    (tmp_path / "wrong.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 900, "height": 900})
        urls: list[str] = []
        messages: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(service.url)
        expect(page.locator("h1")).to_have_text("digits predictor, version 7")
        page.locator("summary").click()
        page.locator("#key").fill(service.key)
        page.locator("#key").blur()
        expect(page.locator("#facts")).to_contain_text("8 × 8, gray")
        expect(page.locator("#samples button")).to_have_count(10)
        page.locator("#file").set_input_files(service.image)
        expect(page.locator("#probabilities tr")).to_have_count(10)
        best = page.locator("#label").inner_text()
        expect(page.locator("#probabilities tr").first).to_contain_text(best)
        expect(page.locator("#details")).to_contain_text("digits version 7")
        expect(page.locator("#size")).to_have_text("8 × 8 pixels; the model sees 8 × 8, gray")
        expect(page.locator("#meaning")).to_contain_text("not calibrated")
        page.screenshot(path=screenshots / "try_page.png", full_page=True)
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=screenshots / "try_page_dark.png", full_page=True)
        expect(page.locator("#unfamiliar")).to_be_hidden()
        page.locator("#file").set_input_files(tmp_path / "noise.png")
        expect(page.locator("#unfamiliar")).to_contain_text("Unlike everything")
        page.screenshot(path=screenshots / "unfamiliar_page.png", full_page=True)
        page.locator("#samples button").nth(4).click()
        expect(page.locator("#unfamiliar")).to_be_hidden()
        expect(page.locator("#label")).to_have_text("4")
        # The browser itself reports what was refused before the key was given.
        refused = "Failed to load resource: the server responded with a status of 401"
        assert [message for message in messages if not message.startswith(refused)] == []
        page.locator("#file").set_input_files(tmp_path / "wrong.png")
        expect(page.locator("#problem")).to_contain_text("not an image")
        expect(page.locator("#answer")).to_be_hidden()
        messages.clear()
        page.goto(f"{service.url}/docs")
        page.get_by_role("button", name="Authorize").click()
        page.locator(".auth-container input").first.fill(service.key)
        page.get_by_role("button", name="Apply credentials").first.click()
        page.get_by_role("button", name="Close").first.click()
        page.screenshot(path=screenshots / "docs_page.png", full_page=True)
        operation = page.locator("#operations-predictions-post_predict")
        operation.locator(".opblock-summary-control").click()
        operation.locator("input[type=file]").set_input_files(service.image)
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .microlight").first
        expect(answer).to_contain_text('"model": "digits"')
        page.screenshot(path=screenshots / "docs_page_answer.png", full_page=True)
        assert messages == []
        own = (service.url, "blob:", "data:")
        assert [url for url in urls if not url.startswith(own)] == []
        browser.close()
