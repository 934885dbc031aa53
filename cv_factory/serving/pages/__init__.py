"""The pages for people: plain HTML, style and script, served from this folder and nowhere else."""

import mimetypes
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).resolve().parent
_ASSETS = frozenset({"style.css", "try.js", "docs.js"})
_COMMON = {
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PAGE = {
    **_COMMON,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
#: A model card has its style and pictures inside, and runs nothing.
_CARD = {
    **_COMMON,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
}


async def page(name: str, _request: Request) -> Response:
    """Answer one of the pages."""
    return Response(_read(name), headers=_PAGE, media_type="text/html")


def card_page(html: str) -> Response:
    """Answer a model card."""
    return Response(html, headers=_CARD, media_type="text/html")


async def asset(request: Request) -> Response:
    """Answer a style or script.

    Raises:
        HTTPException: 404: there is no such file.
    """
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404)
    return Response(_read(name), media_type=mimetypes.guess_type(name)[0])


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
