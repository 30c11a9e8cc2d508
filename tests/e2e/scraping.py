"""Reads a real node's metrics as Prometheus does."""

from __future__ import annotations

from urllib.request import urlopen


def scrape(address: str) -> str:
    """The metrics that ``HOST:PORT`` serves."""
    with urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
