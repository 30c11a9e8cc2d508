"""The acknowledgements that MQTT requires of a client."""

from __future__ import annotations

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Packet, Publish


def answer_to(packet: Packet) -> Ack | None:
    """The acknowledgement of a packet; ``None`` if the packet needs none."""
    if isinstance(packet, Publish):
        return Ack(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id) if packet.qos else None
    if not isinstance(packet, Ack):
        return None
    if packet.type == PUBREL:
        return Ack(PUBCOMP, packet.packet_id)
    if packet.type == PUBREC and packet.reason < 0x80:
        return Ack(PUBREL, packet.packet_id)
    return None
