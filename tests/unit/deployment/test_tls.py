"""A certificate is checked before a proxy uses it, and the deployer trusts that one alone."""

import errno
import os
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cv_factory.deployment.local import supervisor
from cv_factory.deployment.local.envoy_config import CERTIFICATE
from cv_factory.deployment.local.envoy_files import read_certificate, write_files
from cv_factory.deployment.local.routes import Routes
from cv_factory.deployment.local.supervisor import Supervisor
from cv_factory.deployment.local.tls import check_tls_files, client_context
from cv_factory.deployment.traffic import TlsFiles
from cv_factory.errors import ConfigError
from tests.support.certificates import CertificateAuthority


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsFiles, TlsFiles]:
    """Two certificates of one authority, each with its key."""
    authority = CertificateAuthority(tmp_path_factory.mktemp("tls"))
    return TlsFiles(*authority.issue("one")), TlsFiles(*authority.issue("two"))


def test_only_a_certificate_with_its_readable_key_is_used(
    files: tuple[TlsFiles, TlsFiles], tmp_path: Path
) -> None:
    one, two = files
    check_tls_files(one)
    with pytest.raises(ConfigError, match=r"endpoint\.tls\.key: .*gone cannot be read \(No such"):
        check_tls_files(TlsFiles(one.certificate, tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"two\.key are no PEM files .* \(KEY_VALUES_MISMATCH\)"):
        check_tls_files(TlsFiles(one.certificate, two.key))
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="are no PEM files"):
        check_tls_files(TlsFiles(tmp_path / "empty", one.key))
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    with pytest.raises(ConfigError, match="without a passphrase"):
        check_tls_files(TlsFiles(one.certificate, encrypted))


def test_the_very_certificate_is_trusted_without_its_authority_and_for_any_name(
    files: tuple[TlsFiles, TlsFiles],
) -> None:
    one, two = files
    handshake(server=one, client=one)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server=two, client=one)


def test_a_certificate_may_have_comments_in_any_encoding(
    files: tuple[TlsFiles, TlsFiles], tmp_path: Path
) -> None:
    commented = tmp_path / "commented.pem"
    commented.write_bytes("Gerät\n".encode("latin-1") + files[0].certificate.read_bytes())
    assert "BEGIN CERTIFICATE" in read_certificate(TlsFiles(commented, files[0].key))


def test_a_renewed_certificate_that_a_full_disk_does_not_take_is_tried_again(
    files: tuple[TlsFiles, TlsFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, files: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_files(tmp_path, Routes(tls=files[0]), "1", ("127.0.0.1", 3000))
    certificate = tmp_path / CERTIFICATE
    certificate.unlink()
    renewing = Supervisor(tmp_path, [], ("127.0.0.1", 3000), (1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "replace_files", fail)
        with pytest.raises(OSError, match="No space left"):
            renewing.renew_certificate()
    renewing.renew_certificate()
    assert "BEGIN CERTIFICATE" in certificate.read_text()


def handshake(server: TlsFiles, client: TlsFiles) -> None:
    """Let a client that trusts one certificate connect to a server with another one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client_context(client).wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].version() is not None
