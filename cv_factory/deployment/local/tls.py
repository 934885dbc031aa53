"""Certificate of a proxy: checked before it is used, and trusted by who verifies the endpoint."""

import ssl

from cv_factory.deployment.traffic import TlsFiles
from cv_factory.errors import ConfigError


def check_tls_files(tls: TlsFiles) -> None:
    """Check that a certificate and its key can be read, and belong together.

    Raises:
        ConfigError: They cannot, or do not.
    """
    for key, file in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"endpoint.tls.{key}: {file} cannot be read ({error.strerror})."
            ) from None
    try:
        # Without a password of its own, OpenSSL would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, "")
    except (ssl.SSLError, ValueError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else "the key has a passphrase"
        raise ConfigError(
            f"endpoint.tls: {tls.certificate} and {tls.key} are no PEM files of a certificate and "
            f"its key without a passphrase ({reason})."
        ) from None


def client_context(tls: TlsFiles) -> ssl.SSLContext:
    """Return what trusts this very certificate, whatever name it is for, until it expires."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(tls.certificate)
    return context
