"""The handshake of the device link: it needs the right two nodes and the secret, and cannot be replayed."""

from __future__ import annotations

import asyncio

import pytest

from mesh.transport.frame import HELLO, LINK, PROOF, Decoder, LinkError, head
from mesh.transport.handshake import Answering, Asking, epoch_of, new_instance
from tests.fakes.mesh import FakeEdge, FakeMesh, prover
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until

SECRET = b"secret"


def pair(door_secret: bytes = SECRET, edge_secret: bytes = SECRET, asked: str = "edge-1") -> tuple[Asking, Answering]:
    return (
        Asking("door", asked, new_instance(7), prover(door_secret)),
        Answering("edge-1", new_instance(9), prover(edge_secret)),
    )


def test_both_ends_learn_the_name_of_the_other() -> None:
    asking, answering = pair()
    answering.proved(asking.challenged(answering.greeted(asking.hello())))
    assert answering.door == "door"
    assert epoch_of(answering.instance) == 7
    assert epoch_of(asking.edge_instance) == 9


def test_edge_without_the_secret_is_refused() -> None:
    asking, answering = pair(edge_secret=b"another")
    with pytest.raises(LinkError, match="does not know the mesh secret"):
        asking.challenged(answering.greeted(asking.hello()))
    assert asking.edge_instance == b""


def test_door_without_the_secret_is_refused() -> None:
    asking, answering = pair()
    answering.greeted(asking.hello())
    for proof in (b"", bytes(32), asking.hello()):
        with pytest.raises(LinkError, match="does not know the mesh secret"):
            answering.proved(proof)


def test_proof_is_invalid_in_the_other_direction_and_when_replayed() -> None:
    asking, answering = pair()
    challenge = answering.greeted(asking.hello())
    with pytest.raises(LinkError):
        answering.proved(challenge[-32:])  # the edge's own proof, sent back to it
    proof = asking.challenged(challenge)
    _, other = pair()
    other.greeted(asking.hello())
    with pytest.raises(LinkError):
        other.proved(proof)  # recorded, and replayed to the edge


def test_door_that_asks_for_another_edge_is_refused() -> None:
    asking, answering = pair(asked="edge-2")
    with pytest.raises(LinkError, match="wants to connect to 'edge-2'; this is 'edge-1'"):
        answering.greeted(asking.hello())


def test_error_names_an_unsupported_version() -> None:
    asking, answering = pair()
    with pytest.raises(LinkError, match="version 9"):
        answering.greeted(b"\x09" + asking.hello()[1:])


@pytest.mark.parametrize("cut", range(0, 62, 7))
def test_truncated_hello_raises_link_error(cut: int) -> None:
    asking, answering = pair()
    with pytest.raises(LinkError):
        answering.greeted(asking.hello()[:cut])


def test_edge_closes_a_connection_that_does_not_prove_itself() -> None:
    async def main() -> None:
        edge = await FakeEdge("edge-1").start()
        asking = Asking("door", "edge-1", new_instance(1), prover(b"wrong"))
        for data in (b"GET / HTTP/1.1\r\n\r\n", head(PROOF, LINK, 32) + bytes(32), head(HELLO, LINK, 2000)):
            unproven = await Bare().connect(edge.devices.port)
            unproven.raw(data)
            await unproven.wait_closed()
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.devices.port)
        hello = asking.hello()
        writer.write(head(HELLO, LINK, len(hello)) + hello)
        [(_, _, challenge)] = Decoder(1024).feed(await reader.read(1024))
        with pytest.raises(LinkError):
            asking.challenged(challenge)
        writer.write(head(PROOF, LINK, 32) + bytes(32))
        assert await reader.read() == b""
        writer.close()
        assert edge.devices.status().doors == ()
        await edge.stop()

    run(main())


def test_a_newer_process_of_a_door_ends_the_older_one() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")  # kept: a garbage-collected client closes its socket
            await mesh.up()
            newer = Asking("door", "edge-1", new_instance(2), prover(SECRET))
            older = Asking("door", "edge-1", new_instance(0), prover(SECRET))
            for asking, stays in ((older, False), (newer, True)):
                reader, writer = await asyncio.open_connection("127.0.0.1", mesh.edge.devices.port)
                hello = asking.hello()
                writer.write(head(HELLO, LINK, len(hello)) + hello)
                [(_, _, challenge)] = Decoder(1024).feed(await reader.read(1024))
                proof = asking.challenged(challenge)
                writer.write(head(PROOF, LINK, len(proof)) + proof)
                assert (await reader.read(9) != b"") == stays
                if stays:
                    await until(lambda: mesh.engine.lost_clients == ["CAR"])
                else:
                    assert mesh.engine.lost_clients == []
                    assert not car.closed.is_set()
                writer.close()

    run(main())
