"""Makes connected clients of every kind, and disconnects them at the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from tests.stock.peer import Greeting, Options, Peer
from tests.stock.way import Way

Dialect = tuple[str, int]  # the kind of client, and the version that it speaks


class Makers:
    """``kinds`` maps the name of a kind to its factory."""

    def __init__(self, kinds: Mapping[str, Callable[[], Peer]]) -> None:
        self._kinds = kinds
        self._made: list[Peer] = []
        self._numbers = itertools.count(1)

    def fresh(self, kind: str) -> Peer:
        """A client that is not connected."""
        peer = self._kinds[kind]()
        self._made.append(peer)
        return peer

    def options(self, dialect: Dialect, way: Way, **changes: Any) -> Options:
        """The options of a CONNECT with a unique client id; clean by default."""
        own: dict[str, Any] = {"port": way.port, "client_id": f"{way.prefix.replace('/', '-')}-{next(self._numbers)}"}
        own |= {"web": way.web, "tls": way.tls, "origin": way.origin}
        return Options(**{**own, "user": way.user, "version": dialect[1], **changes})

    def join(self, dialect: Dialect, way: Way, **changes: Any) -> Peer:
        """A connected client."""
        return self.greeted(dialect, way, **changes)[0]

    def greeted(self, dialect: Dialect, way: Way, **changes: Any) -> tuple[Peer, Greeting]:
        """A connected client, and the content of its CONNACK."""
        peer = self.fresh(dialect[0])
        return peer, peer.connect(self.options(dialect, way, **changes))

    def pair(self, dialect: Dialect, way: Way, **changes: Any) -> tuple[Peer, Peer]:
        """A publisher and a receiver; the changes apply to the receiver."""
        return self.join(dialect, way), self.join(dialect, way, **changes)

    def close(self) -> None:
        for peer in self._made:
            peer.leave()
