"""Sessions after the server was killed: each survives completely and expires when it would have expired anyway.

Each crash costs seconds in the worlds with sockets, so a scenario checks several sessions at once.
"""

from __future__ import annotations

from typing import final

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish, Subscription
from tests.conformance.clients import VERSIONS, lasting, resume, will
from tests.conformance.peer import Peer
from tests.conformance.world import ATTACH_GRACE, World, properties
from tests.support.shows import shows


def check_options(peer: Peer, sender: Peer) -> None:
    """No Local, Retain As Published, the subscription identifier and the shared group are unchanged."""
    (own, shared) = (f"{peer.client_id}/{rest}" for rest in ("options", "shared"))
    peer.publish(own, b"own", 1)
    sender.publish(own, b"another", 2, retain=True)
    sender.publish(shared, b"shared", 0)
    for payload, qos, retain in ((b"another", 1, True), (b"shared", 0, False)):
        message = peer.message()
        assert (message.payload, message.qos, message.retain) == (payload, qos, retain)
        assert message.properties is not None
        assert message.properties.subscription_ids == [7]
    peer.expect_nothing()


@shows(v5="3.1.2-5 3.1.2-23 4.1.0-1 4.5.0-1", v3="3.1.2-4 3.1.2-5 4.1.0-1 4.5.0-1")
def test_sessions_survive_a_crash(world: World) -> None:
    """Of connected and disconnected clients, with their messages; an ended subscription does not return."""
    topic = world.topic()
    connected = [lasting(world, protocol) for protocol in VERSIONS]
    away = [lasting(world, protocol) for protocol in VERSIONS]
    for peer in connected + away:
        assert peer.subscribe(topic, f"{topic}/gone", qos=1) == [1, 1]
        peer.unsubscribe(f"{topic}/gone")
    for peer in away:
        peer.leave()
    choosy = lasting(world)
    below = choosy.client_id
    choosy.subscribe(Subscription(f"{below}/options", 1, True, True, 2), f"$share/g/{below}/shared", identifier=7)
    sender = world.client()
    assert sender.publish(topic, b"before") == 0
    world.crash()
    returned = [resume(world, peer) for peer in connected + away]
    sender = world.client()
    sender.publish(f"{topic}/gone")
    sender.publish(topic, b"after")
    for peer in returned:
        assert peer.messages(2) == [b"before", b"after"]
        peer.expect_nothing()
    check_options(resume(world, choosy), sender)


@shows(v5="4.1.0-2 3.1.2-23", v3="3.1.2-6")
def test_sessions_expire_at_the_same_time_after_a_crash(world: World) -> None:
    """Some expire while the server is down, some after its restart, and some end with the lost connection."""
    sessions = {
        "connected": lasting(world, expiry=1),
        "shortened": lasting(world),
        "away": lasting(world, expiry=5),
        "longer": lasting(world),
        "longer, connected": lasting(world),
        "no expiry": world.client(),
        "clean": world.client(protocol=4),
    }
    topic = world.topic()
    for peer in sessions.values():
        peer.subscribe(topic)
    sessions["away"].leave()
    world.elapse(3)
    sessions["longer"].leave()
    sessions["shortened"].leave(properties=properties(session_expiry=1))
    world.client().publish(topic)  # its acknowledgement means that everything before it is on the disk
    world.crash()
    world.elapse(ATTACH_GRACE + 1.5)
    found = {
        name: world.client(peer.client_id, peer.protocol, clean=False).connack.session_present
        for name, peer in sessions.items()
    }
    assert found == {name: name.startswith("longer") for name in sessions}


@shows(v5="3.1.2-7 3.1.2-8 3.1.2-10 3.1.3-9 3.14.4-3", v3="3.1.2-8 3.1.2-10")
def test_wills_are_published_once_despite_a_crash(world: World) -> None:
    """A will is published once, when it is due; never if the client has returned before or has sent DISCONNECT."""
    topic = world.topic()
    watcher = lasting(world)
    watcher.subscribe(f"{topic}/+", qos=1)
    due = world.client(expiry=600, will=will(f"{topic}/due", 5, 1))
    due.lose()
    late = world.client(expiry=600, will=will(f"{topic}/late", 1, 1))
    late.lose()
    world.elapse(1.5)
    assert watcher.message().topic == f"{topic}/late"
    connected = [world.client(protocol=one, will=will(f"{topic}/connected{one}", qos=1)) for one in VERSIONS]
    lasting_longer = world.client(expiry=600, will=will(f"{topic}/lasting", qos=1))
    returning = world.client(expiry=600, will=will(f"{topic}/returning", 5, 1))
    world.client(expiry=600, will=will(f"{topic}/good-bye", 1, 1)).leave()
    published = world.client(expiry=600, will=will(f"{topic}/published", qos=1))
    published.lose()
    assert watcher.message().topic == f"{topic}/published"
    world.client().publish(f"{topic}/last")  # its acknowledgement means that everything before it is on the disk
    assert watcher.message().topic == f"{topic}/last"
    watcher.expect_nothing()
    world.crash()
    watcher = resume(world, watcher)
    world.client(returning.client_id, clean=False, expiry=600)
    for peer in connected[1:]:  # their sessions ended with their connections
        assert not world.client(peer.client_id, peer.protocol, clean=False).connack.session_present
    world.elapse(4)
    got = sorted(watcher.message().topic for _ in range(5))
    assert got == [*(f"{topic}/connected{peer.protocol}" for peer in connected), f"{topic}/due", f"{topic}/lasting"]
    assert world.client(lasting_longer.client_id, clean=False).connack.session_present
    world.elapse(2.5)
    watcher.expect_nothing()


@final
class Exchanges:
    """A client with exchanges of every state in both directions, before and after a crash."""

    def __init__(self, world: World, protocol: int) -> None:
        self.world = world
        self.topic = world.topic()
        self.watcher, self.peer = lasting(world), lasting(world, protocol)
        self.watcher.subscribe(self.topic)
        self.peer.subscribe(f"{self.topic}/down")
        self.delivered: dict[bytes, Publish] = {}

    def begin(self) -> None:
        peer, topic = self.peer, self.topic
        peer.send(Publish(topic, b"once", 2, False, False, 7), Publish(topic, b"closed", 2, False, False, 8))
        assert [peer.expect(Ack).type for _ in range(2)] == [PUBREC, PUBREC]
        peer.send(Ack(PUBREL, 8))
        assert peer.expect(Ack).type == PUBCOMP
        sender = self.world.client()
        for payload, qos in ((b"released", 2), (b"unreleased", 2), (b"unacknowledged", 1), (b"acknowledged", 1)):
            sender.publish(f"{topic}/down", payload, qos)
        self.delivered = {message.payload: message for message in (peer.expect(Publish) for _ in range(4))}
        peer.send(Ack(PUBACK, self.identifier(b"acknowledged")), Ack(PUBREC, self.identifier(b"released")))
        assert peer.expect(Ack).type == PUBREL
        sender.publish(topic, b"last")  # its acknowledgement means that everything before it is on the disk

    def identifier(self, payload: bytes) -> int:
        return self.delivered[payload].packet_id

    def go_on_receiving(self) -> None:
        """The server sends PUBREL for the released message and repeats the others in order with their identifiers."""
        self.peer = resume(self.world, self.peer)
        again = [self.peer.next() for _ in range(3)]
        assert Ack(PUBREL, self.identifier(b"released")) in again
        messages = [packet for packet in again if isinstance(packet, Publish)]
        expected = [(payload, True, self.identifier(payload)) for payload in (b"unreleased", b"unacknowledged")]
        assert [(message.payload, message.dup, message.packet_id) for message in messages] == expected

    def go_on_sending(self) -> None:
        """A repeat is answered and not passed on; a freed identifier starts a new message."""
        peer = self.peer
        peer.send(Publish(self.topic, b"once", 2, False, True, 7), Ack(PUBREL, 7))
        assert [(ack.type, ack.reason) for ack in (peer.find(Ack) for _ in range(2))] == [(PUBREC, 0), (PUBCOMP, 0)]
        peer.send(Publish(self.topic, b"anew", 2, False, False, 8))
        assert peer.find(Ack).type == PUBREC
        self.watcher = resume(self.world, self.watcher)
        assert self.watcher.messages(4) == [b"once", b"closed", b"last", b"anew"]
        self.watcher.expect_nothing()


@shows(v5="3.14.4-3 3.1.2-10 3.1.2-11", v3="3.1.2-10 3.14.4-3")
def test_disconnect_survives_a_crash(world: World) -> None:
    """Once the server has closed the connection, the will stays deleted and the new expiry applies."""
    topic = world.topic()
    watcher = lasting(world)
    watcher.subscribe(f"{topic}/+", qos=1)
    ended = world.client(expiry=600, will=will(f"{topic}/ended", qos=1))
    left = [world.client(expiry=600, will=will(f"{topic}/left", qos=1)) for _ in range(5)]
    for peer in left:
        peer.leave()
    ended.leave(0, properties(session_expiry=0))
    world.crash()
    assert not world.client(ended.client_id, clean=False).connack.session_present
    assert world.client(left[0].client_id, clean=False, expiry=600).connack.session_present
    watcher = resume(world, watcher)
    world.elapse(4)
    watcher.expect_nothing()


@shows(v5="4.3.3-6 4.3.3-10 4.3.3-11 4.4.0-1 3.3.1-1", v3="4.3.3-1 4.3.3-2 4.4.0-1 3.3.1-1 2.3.1-4")
def test_exchanges_continue_after_a_crash(world: World) -> None:
    """An accepted message is not accepted twice; a delivered one is repeated from its state, PUBLISH or PUBREL."""
    both = [Exchanges(world, protocol) for protocol in (4, 5)]
    for exchanges in both:
        exchanges.begin()
    world.crash()
    for exchanges in both:
        exchanges.go_on_receiving()
        exchanges.go_on_sending()
