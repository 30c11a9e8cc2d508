"""Headless Chromium with one page, which connects with MQTT.js and tells what happened."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.stock.mqttjs_peer import LIBRARY
from tests.support.waiting import PATIENCE, wait_until

BUNDLE = LIBRARY / "node_modules" / "mqtt" / "dist" / "mqtt.min.js"
PAGE = """<!doctype html><script src="/mqtt.js"></script><script>
const wish = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const told = [];
function tell(what) {
  told.push(what);
  fetch("/told", { method: "POST", body: JSON.stringify(told) });
}
const client = mqtt.connect(wish.url, { ...wish.options, reconnectPeriod: 0 });
client.on("connect", () => {
  tell("connected");
  client.subscribe(wish.topic, { qos: 1 }, () => client.publish(wish.topic, wish.payload, { qos: 1 }));
});
client.on("message", (topic, payload) => { tell(payload.toString()); client.end(); });
client.on("close", () => tell("closed"));
</script>"""


class Site:
    """Serves the page at ``port`` of 127.0.0.1. ``told``: what the page has told."""

    def __init__(self, port: int) -> None:
        self.told: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/mqtt.js":
                    self._answer("text/javascript", BUNDLE.read_bytes())
                else:
                    self._answer("text/html", PAGE.encode())

            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if len(told) > len(site.told):
                    site.told = told
                self._answer("text/plain", b"")

            def _answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing is logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


class Browser:
    """Shows a page of ``site``. It reaches this machine only, and takes certificates with the key of ``server``."""

    def __init__(self, folder: Path, server: x509.Certificate, site: Site, wish: dict[str, Any]) -> None:
        key = server.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        trusted = base64.b64encode(hashlib.sha256(key).digest()).decode()
        self._site = site
        self._log = folder / "chromium.log"
        command = [
            program(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={folder / 'profile'}", f"--ignore-certificate-errors-spki-list={trusted}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking",
            f"{site.origin}/#{json.dumps(wish)}",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "HOME": str(folder)},
            )  # fmt: skip

    def tells(self, *told: str) -> None:
        """Wait until the page has told this, and nothing else."""

        def done() -> bool:
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            return len(self._site.told) >= len(told)

        wait_until(done, f"the page to tell {told}")
        assert self._site.told == list(told)

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its own processes
        self._process.wait(PATIENCE)


def program() -> str:
    """Chromium itself: Debian's ``chromium`` is a script, which needs files in /etc."""
    found = shutil.which("chromium")
    assert found is not None, "tools/programs.sh installs chromium"
    own = Path(found).parents[1] / "lib" / "chromium" / "chromium"
    return str(own) if own.exists() else found
