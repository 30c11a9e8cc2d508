"""A program that uses a ``ClientSession``, and its server, without sockets or a journal."""

from __future__ import annotations

from typing import Any

from mesh.session.application import ClientEvents, Receiver, Sender
from mesh.session.client import ClientSession
from mesh.session.clientstate import UP
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import RELEASED, Delivery, Depth, Outbound
from mesh.session.requests import Request
from mesh.session.span import Span
from mesh.wire import reasons
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Ack, Connack, Connect, Packet, Publish, Subscription
from mesh.wire.properties import Properties
from mesh.wire.tracecontext import TraceContext

CONTEXT = TraceContext.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")


class RecordedRequest(Request):
    """A request that records its outcome."""

    def __init__(self, filter: str, subscribe: bool = True, identifier: int = 0, position: int = 0) -> None:
        super().__init__(filter, Subscription(filter, 1) if subscribe else None, identifier, position)
        self.outcome: list[int | str] = []

    def answered(self, reason: int) -> None:
        self.outcome.append(reason)

    def abandoned(self) -> None:
        self.outcome.append("abandoned")


class RecordedSpan(Span):
    """A span that records the reasons it was ended with."""

    def __init__(self) -> None:
        super().__init__(CONTEXT)
        self.ended: list[int] = []

    def end(self, reason: int = 0) -> None:
        self.ended.append(reason)


class Program:
    """The program that uses the session, and the server."""

    def __init__(self, window: int = 100, limits: PacketLimits | None = None) -> None:
        self.now = 1000.0
        self.notes: list[Any] = []
        self.taken: list[Publish] = []
        self.receipts: list[Receipt] = []
        self.answers = reasons.SUCCESS  # reason code for the server's publishes
        self.ready = True  # new receipts are ready at once
        self.position = 0
        self.durable = 0
        self.open: dict[int, int] = {}
        self.context_of: TraceContext | None = None
        self.outbound = Outbound(Depth(), window)
        self.wanted: list[Request] = []
        self.client = ClientSession(
            _Events(self), _Sender(self), _Receiver(self), self.outbound, limits or PacketLimits(), lambda: self.now
        )
        self.reader = Reader(PacketLimits(), SERVER)
        self.protocol = MQTT5

    # The connection

    def open_socket(self, connect: Connect | None = None) -> Connect:
        connect = connect or Connect(MQTT5, "me", False, 10)
        self.protocol = connect.protocol
        self.reader = Reader(PacketLimits(), SERVER)
        self.client.opened(connect)
        (sent,) = self.sent()
        assert isinstance(sent, Connect)
        return sent

    def accept(self, present: bool = False, connect: Connect | None = None, **properties: Any) -> None:
        self.open_socket(connect)
        offered = Properties()
        for name, value in properties.items():
            setattr(offered, name, value)
        self.server(Connack(present, 0, offered if self.protocol == MQTT5 else None))
        assert self.client.state == UP

    def server(self, *packets: Packet) -> None:
        self.client.received(b"".join(encode(packet, self.protocol) for packet in packets))

    def sent(self) -> list[Packet]:
        packets = self.reader.feed(self.client.output())
        assert self.reader.error is None, self.reader.error
        return packets

    def commit(self) -> None:
        self.durable = self.position
        self.client.advance(self.durable)

    # Messages

    def send(self, payload: bytes, qos: int = 1, position: int = 0, **fields: Any) -> Delivery:
        message = Message("t", payload, qos, False, b"", self.now, **fields)
        delivery = Delivery(message, qos, False, (), self.now, message.expires, message.size())
        delivery.position = position
        if qos:
            self.outbound.number(delivery)
        self.outbound.push(delivery)
        self.client.pump()
        return delivery


class _Events(ClientEvents):
    def __init__(self, program: Program) -> None:
        self.program = program

    def accepted(self, session_present: bool) -> None:
        self.program.notes.append(("accepted", session_present))
        for request in self.program.wanted:
            self.program.client.request(request)

    def closing(self, why: str) -> None:
        self.program.notes.append(("closing", why))

    def handled(self) -> None:
        self.program.notes.append("handled")


class _Sender(Sender):
    def __init__(self, program: Program) -> None:
        self.program = program

    def load(self, delivery: Delivery) -> Message:
        assert delivery.message is not None
        return delivery.message

    def context(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        return self.program.context_of

    def released(self, delivery: Delivery) -> None:
        self.program.position += 1
        delivery.state = RELEASED
        delivery.position = self.program.position
        self.program.notes.append(("released", delivery.number))

    def finished(self, delivery: Delivery, reason: int) -> None:
        self.program.notes.append(("finished", delivery.number, reason))

    def expired(self, delivery: Delivery) -> None:
        self.program.notes.append(("expired", delivery.number))


class _Receiver(Receiver):
    def __init__(self, program: Program) -> None:
        self.program = program

    def take(self, packet: Publish, receipt: Receipt | None) -> int:
        program = self.program
        program.taken.append(packet)
        if receipt is not None:
            program.receipts.append(receipt)
            receipt.pending = 0 if program.ready else 1
        return program.answers

    def keep(self, packet_id: int) -> int:
        self.program.position += 1
        self.program.open[self.program.position] = packet_id
        return self.program.position

    def forget(self, position: int) -> int:
        if position:
            del self.program.open[position]
            self.program.position += 1
        return self.program.position


def ids(packets: list[Packet]) -> list[tuple[int, int]]:
    return [(packet.type, packet.packet_id) for packet in packets if isinstance(packet, Ack)]


def finished(program: Program) -> list[tuple[int, int]]:
    return [note[1:] for note in program.notes if note[0] == "finished"]
