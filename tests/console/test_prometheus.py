"""Prometheus' own tool, promtool, accepts the console's metrics and targets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import yaml

from tests.console.made import ask, run
from tests.support.promtool import check_metrics, promtool

CONFIG = Path(__file__).parents[2] / "observability" / "prometheus.yml"


def test_promtool_accepts_the_metrics() -> None:
    async def scenario(console: Any, made: Any) -> None:
        _, _, body = await ask(console, "/metrics")
        await asyncio.to_thread(check_metrics, body)

    run(scenario)


def test_the_prometheus_configuration_finds_the_nodes(tmp_path: Path) -> None:
    """The configuration finds the targets when it has this console's address."""

    async def scenario(console: Any, made: Any) -> None:
        config = yaml.safe_load(CONFIG.read_text())
        (job,) = config["scrape_configs"]
        (discovery,) = job["http_sd_configs"]
        discovery["url"] = f"http://127.0.0.1:{console.port}/api/targets"
        file = tmp_path / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        words = ("check", "service-discovery", "--timeout=5s", str(file), job["job_name"])
        found = json.loads(await asyncio.to_thread(promtool, *words))
        labels = {tuple(one["labels"][name] for name in ("instance", "mesh", "node", "role")) for one in found}
        assert labels == {
            ("127.0.0.1:9464", "made", "edge-1", "edge"),
            ("127.0.0.1:9465", "made", "core", "core"),
            (f"127.0.0.1:{console.port}", "made", "console", "console"),
        }

    run(scenario)


def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", str(CONFIG))
