"""Which client certificates are accepted, beyond what OpenSSL has verified: neither revoked nor expired.

It knows facts of certificates, authorities and lists of revoked ones: never files or connections. OpenSSL verifies a
certificate in a full handshake only; this is asked after each one, full or resumed, and again for open connections.
What always holds:

* a list counts only if one of the authorities has signed it; one that is out of date stays in force;
* with lists, the key that signed a certificate is one of the authorities', and none of those above it is revoked;
* other authorities are asked about an open connection as OpenSSL would ask them: a chain of signatures, made of what is
  in ``ca`` and of what the client has sent, leads to one that has signed itself (``vouches``).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mesh.broker.peer import TlsFacts
from mesh.transport.certificates import CHAIN, day_of, each_revoked, facts_of, key_of, name_text, sent_chain, signs

REVOKED: Final = "its certificate is revoked"
EXPIRED: Final = "its certificate has expired"
UNTRUSTED: Final = "its certificate was signed by none of the authorities that are now in ca"
UNKNOWN: Final = "its certificate was signed by none of the certificates in ca, so no list says whether it is revoked"


@final
class Trust:
    """``authorities`` sign certificates of clients; ``lists`` are of revoked ones, ``None`` if the listener has none.
    Raises ``ValueError`` for a list that no authority has signed."""

    def __init__(
        self, authorities: Sequence[x509.Certificate], lists: Sequence[x509.CertificateRevocationList] | None
    ) -> None:
        self._lists = lists is not None
        self._authorities = list(authorities)
        self._revoked: dict[str, set[int]] = {}
        self.stale = ""  # says which list is out of date
        for one in lists or ():
            self._add(one)
        self._fallen = self._revoked_keys()
        self.authorities = frozenset([one.fingerprint(hashes.SHA256()) for one in self._authorities])
        self._keys: dict[str, list[tuple[str, x509.Certificate]]] = {}
        for authority in self._authorities:
            known = self._keys.setdefault(_plain(name_text(authority.subject)), [])
            known.append((key_of(authority), authority))

    @property
    def count(self) -> int:
        """How many certificates are revoked."""
        return sum(len(serials) for serials in self._revoked.values())

    def facts(self, session: ssl.SSLObject) -> TlsFacts:
        """The facts of a handshake that has succeeded. Raises one of ``UNREADABLE`` if the certificate cannot be
        read."""
        facts = facts_of(session)
        if facts.fingerprint and self._lists:
            facts.authority = self._signer(session, facts.issuer)
        return facts

    def refusal(self, facts: TlsFacts, now: float | None = None) -> str:
        """Why a connection with these facts must not be, or end; empty if it may be."""
        if not facts.fingerprint:
            return ""
        if facts.not_after <= (time.time() if now is None else now):
            return EXPIRED
        if not self._lists:
            return ""
        if int(facts.serial, 16) in self._revoked.get(_plain(facts.issuer), ()):
            return REVOKED
        if not facts.authority:
            return UNKNOWN
        return REVOKED if facts.authority in self._fallen else ""

    def vouches(self, session: ssl.SSLObject) -> bool:
        """Whether the authorities vouch for the certificate of an open connection, which OpenSSL verified when others
        were in force. Takes about 0.2 ms. Raises one of ``UNREADABLE``."""
        sent = sent_chain(session)
        reached, left = sent[:1], sent[1:CHAIN]
        for signed in reached:  # it grows
            for _, authority in self._keys.get(_plain(name_text(signed.issuer)), ()):
                if authority not in reached and signs(authority, signed):
                    if signs(authority, authority):
                        return True
                    reached.append(authority)
            signers = [one for one in left if signs(one, signed)]
            left = [one for one in left if one not in signers]
            reached += signers
        return False

    def _add(self, one: x509.CertificateRevocationList) -> None:
        issuer = _plain(name_text(one.issuer))
        if not any(_signed(one, authority) for authority in self._authorities):
            raise ValueError(
                f"the list of revoked certificates of {name_text(one.issuer)} is signed by none of the certificates in "
                "ca; write the certificate of that authority into ca"
            )
        self._revoked.setdefault(issuer, set()).update(each_revoked(one))
        end = one.next_update_utc
        if end is not None and end.timestamp() < time.time():
            self.stale = (
                f"the list of revoked certificates of {name_text(one.issuer)} was due for an update on "
                f"{day_of(end.timestamp())}; it stays in force"
            )

    def _revoked_keys(self) -> frozenset[str]:
        """The keys of the authorities that are revoked, and of those that only these have signed."""
        fallen: set[str] = set()
        if not self._revoked:
            return frozenset()
        for authority in self._authorities:
            if authority.serial_number in self._revoked.get(_plain(name_text(authority.issuer)), ()):
                fallen.add(key_of(authority))
        grown = True
        while grown:
            grown = False
            for authority in self._authorities:
                key = key_of(authority)
                signers = [key_of(one) for one in self._authorities if signs(one, authority)]
                if key not in fallen and signers and all(signer in fallen for signer in signers):
                    fallen.add(key)
                    grown = True
        return frozenset(fallen)

    def _signer(self, session: ssl.SSLObject, issuer: str) -> str:
        certificate = x509.load_der_x509_certificate(session.getpeercert(True) or b"")
        for key, authority in self._keys.get(_plain(issuer), ()):
            if signs(authority, certificate):
                return key
        return ""


def _signed(one: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if _plain(name_text(authority.subject)) != _plain(name_text(one.issuer)):
        return False
    try:
        return one.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - a key of a kind that signs no lists
        return False


def _plain(name: str) -> str:
    """A name as X.509 compares them: without regard to case and repeated spaces."""
    return " ".join(name.split()).casefold()
