"""Wrong passwords at the core of a running mesh."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.topology.load import load
from mesh.wire.packets import MQTT5, MQTT311, Connack, Connect
from tests.cli.running import running_mesh
from tests.support.bare import Bare
from tests.support.loop import run


@pytest.mark.parametrize(("protocol", "wrong", "slowed"), [(MQTT5, 0x86, 0x9F), (MQTT311, 4, 3)])
def test_core_slows_who_guesses_and_no_other_client(
    protocol: int, wrong: int, slowed: int, tmp_path: Path
) -> None:
    async def main(port: int) -> None:
        async def log_in(user: str, password: bytes | None) -> int:
            client = Bare(protocol)
            await client.open(port)
            client.send(Connect(protocol, "", username=user, password=password))
            try:
                return (await client.wait(Connack)).reason
            finally:
                await client.close()

        assert [await log_in("control", b"wrong") for _ in range(6)] == [wrong] * 5 + [slowed]
        assert await log_in("control", b"secret") == slowed
        assert await log_in("another", None) == 0

    with running_mesh(tmp_path) as file:
        run(main(load(file).cores[0].listen[0].address.port))
