"""A fault that affects watches only."""

from __future__ import annotations

import pytest

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, WatchCall
from mesh.registry.errors import Unavailable


class Gate:
    """Breaks the watch streams and refuses new ones; all other calls work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = True
        self.calls: list[WatchCall] = []
        original = EtcdClient.watch

        async def watch(client: EtcdClient, request: pb.WatchCreate) -> tuple[WatchCall, str]:
            if not self.open:
                raise Unavailable("the gate is closed")
            call, url = await original(client, request)
            self.calls.append(call)
            return call, url

        monkeypatch.setattr(EtcdClient, "watch", watch)

    def shut(self) -> None:
        self.open = False
        for call in self.calls:
            call.cancel()
