"""The handshake of the device link: only the two ends that are meant, only with the secret, only this time."""

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


def test_both_ends_learn_who_the_other_is() -> None:
    asking, answering = pair()
    answering.proved(asking.challenged(answering.greeted(asking.hello())))
    assert answering.door == "door"
    assert epoch_of(answering.instance) == 7
    assert epoch_of(asking.edge_instance) == 9


def test_an_edge_without_the_secret_is_found_out() -> None:
    asking, answering = pair(edge_secret=b"another")
    with pytest.raises(LinkError, match="does not know the mesh secret"):
        asking.challenged(answering.greeted(asking.hello()))
    assert asking.edge_instance == b""


def test_a_door_without_the_secret_is_found_out() -> None:
    asking, answering = pair()
    answering.greeted(asking.hello())
    for proof in (b"", bytes(32), asking.hello()):
        with pytest.raises(LinkError, match="does not know the mesh secret"):
            answering.proved(proof)


def test_a_proof_is_worth_nothing_in_the_other_direction_or_another_time() -> None:
    asking, answering = pair()
    challenge = answering.greeted(asking.hello())
    with pytest.raises(LinkError):
        answering.proved(challenge[-32:])  # the edge's own proof, sent back to it
    proof = asking.challenged(challenge)
    _, other = pair()
    other.greeted(asking.hello())
    with pytest.raises(LinkError):
        other.proved(proof)  # recorded, and played to the edge again


def test_a_door_that_looks_for_another_edge_is_told_apart() -> None:
    asking, answering = pair(asked="edge-2")
    with pytest.raises(LinkError, match="looks for 'edge-2'; this is 'edge-1'"):
        answering.greeted(asking.hello())


def test_another_version_is_named() -> None:
    asking, answering = pair()
    with pytest.raises(LinkError, match="version 9"):
        answering.greeted(b"\x09" + asking.hello()[1:])


@pytest.mark.parametrize("cut", range(0, 62, 7))
def test_a_hello_that_is_cut_off_is_a_link_error(cut: int) -> None:
    asking, answering = pair()
    with pytest.raises(LinkError):
        answering.greeted(asking.hello()[:cut])


def test_a_stranger_at_the_edge_gets_no_further() -> None:
    async def main() -> None:
        edge = await FakeEdge("edge-1").start()
        asking = Asking("door", "edge-1", new_instance(1), prover(b"wrong"))
        for data in (b"GET / HTTP/1.1\r\n\r\n", head(PROOF, LINK, 32) + bytes(32), head(HELLO, LINK, 2000)):
            stranger = await Bare().connect(edge.devices.port)
            stranger.raw(data)
            await stranger.wait_closed()
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
            car = await Bare().hello(mesh.port, "CAR")  # held: a client that is collected closes its socket
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
