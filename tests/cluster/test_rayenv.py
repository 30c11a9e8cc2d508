"""The environment of Ray: what the mesh's own Ray gets, and what a cluster lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.cluster.rayenv import LASTING, environment, short_lived


def test_the_own_ray_outlives_a_lost_head_and_a_cut_network(tmp_path: Path) -> None:
    assert short_lived(environment(tmp_path, {})) == ""


def test_variables_of_the_shell_do_not_shorten_it(tmp_path: Path) -> None:
    assert short_lived(environment(tmp_path, {"RAY_gcs_rpc_server_reconnect_timeout_s": "60"})) == ""


def test_a_cluster_with_rays_own_values_is_warned_of() -> None:
    text = short_lived({})
    assert all(f"{name}={value}" in text for name, value in LASTING.items())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RAY_gcs_rpc_server_reconnect_timeout_s", "900", ""),
        ("RAY_gcs_rpc_server_reconnect_timeout_s", "899", "RAY_gcs_rpc_server_reconnect_timeout_s=3600 "),
        ("RAY_health_check_failure_threshold", "5", "RAY_health_check_failure_threshold=120 "),
        ("RAY_health_check_period_ms", "5000", ""),
        ("RAY_grpc_client_keepalive_time_ms", "300000", "RAY_grpc_client_keepalive_time_ms=5000 "),
        ("RAY_grpc_client_keepalive_timeout_ms", "soon", "RAY_grpc_client_keepalive_timeout_ms=5000 "),
    ],
)
def test_a_value_that_is_too_short_is_named(name: str, value: str, said: str) -> None:
    text = short_lived({**LASTING, name: value})
    assert said in text
    assert bool(text) == bool(said)
