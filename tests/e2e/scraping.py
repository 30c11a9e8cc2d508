"""How Prometheus asks a real node for its figures."""

from __future__ import annotations

from urllib.request import urlopen


def scrape(address: str) -> str:
    """The metrics that are served at ``HOST:PORT``."""
    with urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
