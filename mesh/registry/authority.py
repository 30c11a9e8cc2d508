"""Makes an authority, and the certificates of the embedded etcd and its clients.

It knows what etcd asks of a certificate. It must never know files. What always holds: the authority's key is forgotten
at once, so that there are never more certificates than these two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from mesh.pki.signing import CLIENT, SERVER, Authority, Validity, Wanted, key_pem, make_key, self_signed, sign

# The certificates end with their folder, not at a date. A clock that is wrong, as in a machine that has just started,
# must not keep etcd from starting. The end is the one that means no end (RFC 5280 section 4.1.2.5).
_ALWAYS: Final = Validity(datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


class Pair(NamedTuple):
    """A certificate and its key, in PEM format."""

    certificate: bytes
    key: bytes


class Issued(NamedTuple):
    """The authority's certificate in PEM format, and the pairs that it signed."""

    authority: bytes
    server: Pair
    client: Pair


def issue(host: str) -> Issued:
    """New certificates. ``host`` is the IP address of the server."""
    key = make_key()
    authority = Authority(self_signed(_name("mesh etcd authority"), key, _ALWAYS), key)
    # etcd's server is a client of itself, too.
    server = _pair(authority, "server", host, SERVER, CLIENT)
    client = _pair(authority, "client", host, CLIENT)
    return Issued(authority.certificate.public_bytes(Encoding.PEM), server, client)


def _pair(authority: Authority, name: str, host: str, *uses: ObjectIdentifier) -> Pair:
    own = make_key()
    wanted = Wanted(_name(f"mesh etcd {name}"), own.public_key(), uses, (x509.IPAddress(ip_address(host)),))
    return Pair(sign(authority, wanted, _ALWAYS).public_bytes(Encoding.PEM), key_pem(own))


def _name(text: str) -> x509.Name:
    """A name without a common name: etcd takes a client's common name as the name of a user."""
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])
