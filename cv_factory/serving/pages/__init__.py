"""Web pages: HTML, style and scripts of this folder, with strict security headers."""

import mimetypes
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).resolve().parent
_ASSETS = frozenset({"style.css", "try.js", "docs.js"})
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
    return Response(_read(name), headers=_PAGE_HEADERS, media_type="text/html")


def card_page(html: str) -> Response:
    """Return a model card."""
    return Response(html, headers=_CARD_HEADERS, media_type="text/html")


async def asset(request: Request) -> Response:
    """Return a style sheet or script.

    Raises:
        HTTPException: 404: there is no such asset.
    """
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404)
    return Response(_read(name), media_type=mimetypes.guess_type(name)[0])


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
