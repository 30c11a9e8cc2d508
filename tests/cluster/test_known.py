"""What etcd has of a mesh, as commands read it."""

from __future__ import annotations

from pathlib import Path

from mesh.cluster.known import known
from mesh.registry.keys import Keys
from tests.support.settings import begun, etcd_in, question, write_file

REFUSED = b'{"revision": 1, "error": "certs/door.pem: no such file", "at": 1.0}'
TAKEN = b'{"revision": 1, "error": "", "at": 1.0}'


def test_a_node_that_refused_a_revision_has_not_confirmed_it(tmp_path: Path) -> None:
    with etcd_in(tmp_path / "etcd") as server:
        topology = begun(write_file(tmp_path, "shop", server, tmp_path / "etcd"))
        keys = Keys("shop")
        question(topology, lambda client: client.put(keys.confirmation("edge-1"), TAKEN))
        question(topology, lambda client: client.put(keys.confirmation("edge-2"), REFUSED))
        found = known(topology, topology.etcd.endpoints)
    assert (found.asked, found.revision, dict(found.confirmed)) == (True, 1, {"edge-1": 1})
    assert found.against == {"edge-2": "does not follow revision 1: certs/door.pem: no such file"}
