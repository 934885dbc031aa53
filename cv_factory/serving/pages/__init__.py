"""Web pages: HTML, style and scripts of this folder and of Swagger UI, with strict headers."""

import hashlib
import mimetypes
from functools import cache
from pathlib import Path

import swagger_ui_bundle
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cv_factory.reporting.html_page import STYLE

_FOLDER = Path(__file__).resolve().parent
_ASSETS = {
    **dict.fromkeys(("style.css", "try.js", "docs.js", "docs.css"), _FOLDER),
    **dict.fromkeys(("swagger-ui-bundle.js", "swagger-ui.css"), swagger_ui_bundle.swagger_ui_path),
}
_COMMON_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PAGE_HEADERS = {
    **_COMMON_HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
#: A model card is self-contained and runs no scripts.
_CARD_HEADERS = {
    **_COMMON_HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
}


async def page(name: str, _request: Request) -> Response:
    """Return one of the pages."""
    return Response((_FOLDER / name).read_bytes(), headers=_PAGE_HEADERS, media_type="text/html")


def card_page(html: str) -> Response:
    """Return a model card."""
    return Response(html, headers=_CARD_HEADERS, media_type="text/html")


async def asset(request: Request) -> Response:
    """Return a style sheet or script; 304 without it if the browser has this very one.

    Raises:
        HTTPException: 404: there is no such asset.
    """
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404)
    content, tag = _read_asset(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=mimetypes.guess_type(name)[0])


@cache
def _read_asset(name: str) -> tuple[bytes, str]:
    """Return an asset and its entity tag; ``style.css`` begins with that of the reports."""
    content = (_ASSETS[name] / name).read_bytes()
    if name == "style.css":
        content = STYLE.encode() + content
    return content, f'"{hashlib.sha256(content).hexdigest()}"'
