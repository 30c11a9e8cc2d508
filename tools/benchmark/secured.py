"""The certificates of a comparison with TLS: one authority, a server and, if asked for, a client, all ECDSA P-256.

It knows files; it must never know a system. What always holds: both systems get the same keys and certificates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

from mesh.pki.folder import SERVER, VEHICLE, Folder
from mesh.pki.signing import ECDSA

PLAIN: Final = ""
TLS: Final = "tls"  # only the server has a certificate
MUTUAL: Final = "mutual tls"  # and so has each client
WEBSOCKET: Final = "wss"  # of ours alone


@final
class Certificates:
    """Files in a new folder. ``both`` has the server's certificate and key in one file, as HAProxy wants them."""

    def __init__(self, folder: Path) -> None:
        made = Folder(folder / "pki")
        made.create("bench", ECDSA)
        made.issue(SERVER, "localhost", ["localhost", "127.0.0.1"])
        made.issue(VEHICLE, "BENCH")
        self.authority = str(made.path / "ca.pem")
        self.cert, self.key = (str(made.file(SERVER, "localhost", suffix)) for suffix in ("pem", "key"))
        self.client_cert, self.client_key = (str(made.file(VEHICLE, "BENCH", suffix)) for suffix in ("pem", "key"))
        both = folder / "both.pem"
        both.touch(0o600)
        both.write_bytes(Path(self.cert).read_bytes() + Path(self.key).read_bytes())
        self.both = str(both)
