"""The PROXY protocol: headers written by hand from its description, and random ones."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire.proxy import LONGEST, ProxyError, ProxyHeader, ProxyReader, crc32c
from tests.support.proxyheaders import (
    CERTIFICATE,
    CHECKSUM,
    CIPHER,
    COMMON_NAME,
    LOCAL,
    PROXY,
    SIGNATURE,
    TCP4,
    TCP6,
    TLS,
    TLS_VERSION,
    UDP4,
    UNIX,
    UNKNOWN,
    block,
    extension,
    inet,
    inet6,
    tls,
    with_checksum,
)

AFTER = b"\x10\x0e what comes after it"
PLAIN4 = block(PROXY, TCP4, inet("192.0.2.7", "198.51.100.1", 50123, 1883))


def read(data: bytes) -> tuple[str, int, tuple[str, str, str] | None]:
    """The header in ``data``, which must be complete: whole, in single bytes, and with bytes after it."""
    whole, single = ProxyReader(), ProxyReader()
    assert whole.feed(data + AFTER) == len(data)
    for byte in data:
        assert single.header is None
        assert single.feed(bytes((byte,))) == 1
    assert single.feed(AFTER) == 0
    assert facts(whole.header) == facts(single.header)
    return facts(whole.header)


def facts(header: ProxyHeader | None) -> tuple[str, int, tuple[str, str, str] | None]:
    assert header is not None
    secure = header.tls
    return header.address, header.port, None if secure is None else (secure.version, secure.cipher, secure.common_name)


def refused(data: bytes) -> str:
    with pytest.raises(ProxyError) as raised:
        ProxyReader().feed(data)
    single = ProxyReader()
    with pytest.raises(ProxyError) as again:
        for byte in data:
            single.feed(bytes((byte,)))
    assert single.header is None
    assert bool(str(again.value))
    return str(raised.value)


@pytest.mark.parametrize(
    ("line", "address", "port"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883\r\n", "192.0.2.7", 50123),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535),
        (b"PROXY TCP6 2001:db8::7 2001:DB8::1 0 1883\r\n", "2001:db8::7", 0),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5 1883\r\n", "192.0.2.7", 5),
        (b"PROXY UNKNOWN\r\n", "", 0),
        (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", "", 0),
    ],
)
def test_a_line_of_version_1_names_the_client(line: bytes, address: str, port: int) -> None:
    assert read(line) == (address, port, None)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883\n", "CR LF"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 50123\r\n", "5 fields"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883 7\r\n", "7 fields"),
        (b"PROXY TCP4  192.0.2.7 198.51.100.1 50123 1883\r\n", "7 fields"),
        (b"PROXY TCP4 192.0.2.07 198.51.100.1 50123 1883\r\n", "'192.0.2.07'"),
        (b"PROXY TCP4 192.0.2.7 198.51.100 50123 1883\r\n", "'198.51.100'"),
        (b"PROXY TCP4 2001:db8::7 2001:db8::1 50123 1883\r\n", "no address of TCP4"),
        (b"PROXY TCP6 192.0.2.7 198.51.100.1 50123 1883\r\n", "no address of TCP6"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 50123 1883\r\n", "no address of TCP6"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 1883\r\n", "'65536' in the PROXY protocol is no port"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 050 1883\r\n", "'050'"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 50 +1883\r\n", "'+1883'"),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 ٣ 1883\r\n".encode(), "ASCII"),
        (b"PROXY UDP4 192.0.2.7 198.51.100.1 50123 1883\r\n", "'UDP4'"),
        (b"PROXY \r\n", "transport ''"),
        (b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n", "more than 107 bytes"),
        (b"proxy TCP4 192.0.2.7 198.51.100.1 50123 1883\r\n", "does not begin"),
        (b"\x10\x0e\x00\x04MQTT\x04\x02", "does not begin"),
        (b"\x16\x03\x01\x02\x00", "does not begin"),
        (b"GET / HTTP/1.1\r\n", "does not begin"),
    ],
)
def test_another_line_is_refused(line: bytes, why: str) -> None:
    assert why in refused(line)


def test_a_block_of_version_2_names_the_client() -> None:
    assert read(PLAIN4) == ("192.0.2.7", 50123, None)
    six = block(PROXY, TCP6, inet6("2001:db8::7", "2001:db8::1", 50123, 1883))
    assert read(six) == ("2001:db8::7", 50123, None)
    mapped = block(PROXY, TCP6, inet6("::ffff:192.0.2.7", "::1", 50123, 1883))
    assert read(mapped) == ("192.0.2.7", 50123, None)


def test_the_load_balancer_s_own_connection_names_no_client() -> None:
    assert read(block(LOCAL, UNKNOWN, b"")) == ("", 0, None)
    assert read(block(LOCAL, TCP4, inet("192.0.2.7", "198.51.100.1", 1, 2) + tls(b"TLSv1.3"))) == ("", 0, None)
    assert read(block(LOCAL, UDP4, b"\xff\xff")) == ("", 0, None)  # what a LOCAL header contains is skipped
    assert read(block(PROXY, UNKNOWN, b"anything")) == ("", 0, None)


def test_a_client_at_a_unix_socket_has_no_address() -> None:
    assert read(block(PROXY, UNIX, bytes(216))) == ("", 0, None)
    assert read(block(PROXY, UNIX, bytes(216) + tls(b"TLSv1.3"))) == ("", 0, ("TLSv1.3", "", ""))


def secured(*parts: bytes, client: int = CERTIFICATE, verify: int = 0) -> bytes:
    return block(
        PROXY,
        TCP4,
        inet("192.0.2.7", "198.51.100.1", 50123, 1883) + tls(*parts, client=client, verify=verify),
    )


def test_the_certificate_s_name_and_the_facts_of_tls_are_taken() -> None:
    name = extension(COMMON_NAME, "VIN-Ä7".encode())
    version, cipher = extension(TLS_VERSION, b"TLSv1.3"), extension(CIPHER, b"TLS_AES_128_GCM_SHA256")
    full = secured(b"", version, name, cipher, extension(0x25, b"RSA2048"))
    assert read(full) == ("192.0.2.7", 50123, ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "VIN-Ä7"))


def test_a_certificate_that_is_not_verified_has_no_name() -> None:
    name = extension(COMMON_NAME, b"VIN-7")
    assert read(secured(b"TLSv1.3", name))[2] == ("TLSv1.3", "", "VIN-7")
    assert read(secured(b"TLSv1.3", name, verify=10))[2] == ("TLSv1.3", "", "")
    assert read(secured(b"TLSv1.3", name, client=0x01))[2] == ("TLSv1.3", "", "")
    assert read(secured(b"TLSv1.3", name, client=0x05))[2] == ("TLSv1.3", "", "VIN-7")  # of a session that is resumed
    assert read(secured(b"TLSv1.3", name, client=0x00))[2] is None


@pytest.mark.parametrize("name", [b"VIN-7\0.example.com", b"VIN\n7", b"\xff\xfe", "VIN\u202e7".encode()])
def test_a_name_that_others_would_read_differently_is_left_out(name: bytes) -> None:
    assert read(secured(b"TLSv1.3", extension(COMMON_NAME, name)))[2] == ("TLSv1.3", "", "")


def test_extensions_of_other_kinds_are_skipped() -> None:
    others = extension(0x01, b"mqtt") + extension(0x04, bytes(300)) + extension(0xEA, b"vpce-1") + extension(0x30, b"")
    assert read(block(PROXY, TCP4, PLAIN4[16:] + others)) == ("192.0.2.7", 50123, None)


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_a_checksum_has_to_fit() -> None:
    good = with_checksum(PROXY, TCP4, PLAIN4[16:] + extension(0x04, b"padding"))
    assert read(good) == ("192.0.2.7", 50123, None)
    for at in range(16, len(good)):
        if at not in (28, 29, 30, 38, 39, 40):  # kinds and lengths of extensions: with another one nothing is known
            assert "checksum" in refused(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (SIGNATURE[:11] + b"\x0b", "does not begin"),
        (SIGNATURE + b"\x11\x11\x00\x0c", "no command"),
        (SIGNATURE + b"\x22\x11\x00\x0c", "no command"),
        (SIGNATURE + b"\x21\x12\x00\x0c", "0x12"),
        (SIGNATURE + b"\x21\x13\x00\x0c", "0x13"),
        (SIGNATURE + b"\x21\x41\x00\x0c", "0x41"),
        (SIGNATURE + b"\x21\x11\x00\x0b", "too short"),
        (SIGNATURE + b"\x21\x21\x00\x23", "too short"),
        (SIGNATURE + b"\x21\x31\x00\xd7", "too short"),
        (SIGNATURE + b"\x21\x11\xff\xff", "at most 4096"),
        (SIGNATURE + b"\x20\x00\xff\xff", "at most 4096"),
        (block(PROXY, TCP4, PLAIN4[16:] + b"\x04"), "longer"),
        (block(PROXY, TCP4, PLAIN4[16:] + b"\x04\x00\x01"), "longer"),
        (block(PROXY, TCP4, PLAIN4[16:] + extension(CHECKSUM, b"abc")), "3 bytes"),
        (block(PROXY, TCP4, PLAIN4[16:] + extension(TLS, b"\x01\0\0\0")), "4 bytes"),
        (block(PROXY, TCP4, PLAIN4[16:] + extension(TLS, b"\x01\0\0\0\0\x22\x00\x09VIN")), "longer"),
        (block(PROXY, TCP4, PLAIN4[16:] + tls(b"TLSv1.3") * 2), "twice"),
        (secured(b"", extension(COMMON_NAME, b"VIN-1"), extension(COMMON_NAME, b"VIN-2")), "twice"),
    ],
)
def test_another_block_is_refused(data: bytes, why: str) -> None:
    assert why in refused(data)


def test_the_longest_header_is_accepted() -> None:
    padding = extension(0x04, bytes(LONGEST - 16 - 12 - 3))
    assert len(block(PROXY, TCP4, PLAIN4[16:] + padding)) == LONGEST
    assert read(block(PROXY, TCP4, PLAIN4[16:] + padding)) == ("192.0.2.7", 50123, None)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_every_ipv4_client_is_named_by_both_versions(one: IPv4Address, two: IPv4Address, here: int, there: int) -> None:
    assert read(f"PROXY TCP4 {one} {two} {here} {there}\r\n".encode()) == (str(one), here, None)
    assert read(block(PROXY, TCP4, inet(str(one), str(two), here, there))) == (str(one), here, None)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_every_ipv6_client_is_named_by_both_versions(one: IPv6Address, two: IPv6Address, here: int, there: int) -> None:
    name = str(one.ipv4_mapped or one)
    assert read(f"PROXY TCP6 {one} {two} {here} {there}\r\n".encode()) == (name, here, None)
    assert read(block(PROXY, TCP6, inet6(str(one), str(two), here, there))) == (name, here, None)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8))
def test_random_extensions_leave_the_address_as_it_is(parts: list[tuple[int, bytes]]) -> None:
    data = PLAIN4[16:] + b"".join(extension(kind, value) for kind, value in parts)
    reader = ProxyReader()
    try:
        reader.feed(block(PROXY, TCP4, data))
    except ProxyError:
        assert any(kind in (CHECKSUM, TLS) for kind, _ in parts)
    else:
        assert facts(reader.header)[:2] == ("192.0.2.7", 50123)
