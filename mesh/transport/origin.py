"""Where a connection comes from: the host and the network of an address, as keys of tables.

It knows addresses only. What always holds: addresses that one host can choose among have one key, so a client cannot
avoid a limit by changing its address within what it was given; a key has at most ``LONGEST`` characters.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

LONGEST: Final = 64
_HOST: Final = 64  # bits: an IPv6 host has the 64 bits after them for itself (RFC 4291 section 2.5.1)
_NETWORK: Final = 48  # bits: a site gets as many at least (RFC 6177)


def host_of(address: str) -> str:
    """The part of an address that one host cannot choose: an IPv4 address, or the first 64 bits of an IPv6 address."""
    if ":" not in address:
        return address[:LONGEST]
    found = _parsed(address)
    if not isinstance(found, IPv6Address):
        return found
    return f"{int(found) >> (128 - _HOST):x}::/{_HOST}"


def network_of(address: str) -> str:
    """The network of an address: the first three numbers of an IPv4 address, or the first 48 bits of an IPv6
    address."""
    if ":" in address:
        found = _parsed(address)
        if isinstance(found, IPv6Address):
            return f"{int(found) >> (128 - _NETWORK):x}::/{_NETWORK}"
        address = found
    return address.rpartition(".")[0][:LONGEST]


def _parsed(address: str) -> IPv6Address | str:
    """An IPv6 address; the text of an IPv4 address that is written as one, and of what is no address."""
    try:
        found = ip_address(address)
    except ValueError:
        return address[:LONGEST]
    if isinstance(found, IPv6Address):
        return found if found.ipv4_mapped is None else str(found.ipv4_mapped)
    return str(found)
