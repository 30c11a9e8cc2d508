"""Which names a certificate may have, and how they are written.

It knows DNS names, IP addresses and common names. It must never know files, except that a name becomes part of a path.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from cryptography import x509

MOST: Final = 64  # characters of a common name (RFC 5280, appendix A.1: ub-common-name)

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_COMMON: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.:@-]{{0,{MOST - 1}}}")
_LONGEST: Final = 253  # characters of a DNS name


def server_name(text: str) -> x509.GeneralName:
    """An IP address, or a DNS name, whose first label may be ``*``. Raises ``ValueError``."""
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    if len(text) > _LONGEST or not _DNS.fullmatch(text) or text.rpartition(".")[2].isdigit():
        raise ValueError(
            f"{text!r} is no name of a server; write a DNS name such as door.example.com or *.example.com, or an IP "
            "address"
        )
    return x509.DNSName(text.lower())


def common(text: str) -> str:
    """A name that can be a common name and the name of a file. Raises ``ValueError``."""
    if not _COMMON.fullmatch(text):
        raise ValueError(
            f"{text!r} cannot be the name in a certificate; write at most {MOST} letters, digits, _, ., :, @ and -, "
            "the first a letter, a digit or _"
        )
    return text


def file_name(text: str) -> str:
    """The name of the files of a certificate for ``text``."""
    return text.replace("*", "_")


def names_text(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses of a certificate, in their order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple([str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))])
