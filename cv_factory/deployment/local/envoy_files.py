"""The files that Envoy watches in a proxy's folder: written beside, then renamed into place."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from cv_factory.artifacts.files import file_lock
from cv_factory.deployment.local.envoy_config import (
    BOOTSTRAP,
    CERTIFICATE,
    bootstrap,
    dynamic_files,
    secret,
)
from cv_factory.deployment.local.routes import ROUTES, Backend, Routes
from cv_factory.deployment.local.tls import check_tls_files
from cv_factory.deployment.traffic import TlsFiles


def write_files(
    folder: Path,
    routes: Routes,
    version: str,
    address: tuple[str, int],
    draining: Collection[Backend] = (),
) -> None:
    """Write all files of a proxy, or none of them.

    Args:
        folder: Of the proxy.
        routes: Written as ``routes.json``, and as what Envoy makes of it.
        version: Reported by Envoy once the files are in force.
        address: IP address and TCP port that clients are accepted on.
        draining: See ``dynamic_files``.

    Raises:
        ConfigError: The certificate cannot be used.
        OSError: A file cannot be written, such as on a full disk.
    """
    files = dynamic_files(routes, version, *address, draining)
    with file_lock(folder / ROUTES):
        certificate: dict[str, str] = {}
        # The one in use stays, even if its files are lost: the supervisor renews it.
        if routes.tls is not None and routes.tls != Routes.load(folder / ROUTES).tls:
            certificate[CERTIFICATE] = read_certificate(routes.tls)
        # The certificate before the listener that refers to it.
        replace_files(folder, {ROUTES: routes.to_json(), **certificate, **files})
        if routes.tls is None:
            (folder / CERTIFICATE).unlink(missing_ok=True)  # it holds a private key


def rewrite_files(folder: Path, address: tuple[str, int]) -> None:
    """Write the files anew from the routes, whatever became of them.

    Raises:
        ArtifactError: The routes are damaged.
    """
    with file_lock(folder / ROUTES):
        routes = Routes.load(folder / ROUTES)
        files = dynamic_files(routes, str(routes.generation), *address)
        replace_files(folder, {BOOTSTRAP: bootstrap(), **files})


def replace_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files beside those that they then replace, each in one step.

    None is replaced unless there was room for all. Only this user may read them.
    """
    suffix = f".{uuid4().hex[:12]}.partial"
    with ExitStack() as undo:
        for name, text in files.items():
            partial = folder / f".{name}{suffix}"
            undo.callback(partial.unlink, missing_ok=True)
            partial.touch(mode=0o600)
            partial.write_text(text, encoding="utf-8")
        for name in files:
            (folder / f".{name}{suffix}").replace(folder / name)


def read_certificate(tls: TlsFiles) -> str:
    """Return the file for Envoy with a certificate chain and its private key.

    Raises:
        ConfigError: They cannot be used.
    """
    check_tls_files(tls)
    # Only comments between the certificates can be anything else than ASCII.
    texts = (path.read_text("ascii", errors="replace") for path in (tls.certificate, tls.key))
    return secret(*texts)
