"""Keys and CA certificates of a client, the same over HTTP and gRPC."""

from pathlib import Path

from cv_factory_client.errors import ClientConfigError


def check_api_key(api_key: str | None) -> str:
    """Return a key or token that fits into a header; empty if there is none.

    Raises:
        ClientConfigError: It holds other characters; the message does not show them.
    """
    key = (api_key or "").strip()
    if not key.isascii() or not (key.isprintable() and " " not in key):
        raise ClientConfigError(
            "The API key holds characters that no key or token has, such as a line break, a blank "
            "or a letter that is not ASCII: check it where it comes from (for run.py: --api-key or "
            "CV_FACTORY_API_KEY)."
        )
    return key


def read_ca(ca: Path) -> str:
    """Return the PEM text of a CA certificate.

    Raises:
        ClientConfigError: The file cannot be read or holds no certificate.
    """
    try:
        text = ca.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ClientConfigError(f"The CA certificate {ca} cannot be read: {error}.") from None
    if "BEGIN CERTIFICATE" not in text:
        raise ClientConfigError(f"{ca} holds no certificate: it begins with BEGIN CERTIFICATE.")
    return text
