"""An authority, and the files of a listener with TLS."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from mesh.transport.listen import NONE, REQUIRED, KeyPair, TlsFiles
from tests.support.certificates import Authority, Issued, put


class Town:
    """``kind``: of the server's key."""

    def __init__(self, folder: Path, kind: str = "ecdsa") -> None:
        self.folder = folder
        self.authority = Authority()
        self.cert, self.key = self.authority.issue(
            "server", dns=["localhost"], names=[x509.IPAddress(ip_address("127.0.0.1"))],
            kind=kind, server=True,
        ).write(folder, "server")  # fmt: skip
        self.ca = put(folder / "ca.pem", self.authority.pem())

    def files(self, client: str = REQUIRED, crl: bool = False) -> TlsFiles:
        return TlsFiles(
            (KeyPair(self.cert, self.key),), client, None if client == NONE else self.ca,
            self.folder / "crl.pem" if crl else None,
        )  # fmt: skip

    def revoke(self, *issued: Issued) -> None:
        put(self.folder / "crl.pem", self.authority.revoke(*[one.certificate for one in issued]))

    def client(self, issued: Issued | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem().decode())
        if issued is not None:
            context.load_cert_chain(*issued.write(self.folder, "client"))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context
