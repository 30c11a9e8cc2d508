"""The client MQTT.js. One Node.js process runs ``mqttjs.mjs`` for all of these clients."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.stock.peer import PLAIN, QOS1, V5, V31, V311, Greeting, Message, Options, Peer, Props, Refused, Wish
from tests.support.waiting import PATIENCE, wait_until

SCRIPT = Path(__file__).with_name("mqttjs.mjs")
LIBRARY = Path(sys.prefix) / "tools" / "mqttjs"  # tools/programs.sh installs it there
CONNECT = {
    "sessionExpiryInterval": "expiry",
    "receiveMaximum": "receive_maximum",
    "maximumPacketSize": "maximum_packet",
    "topicAliasMaximum": "alias_maximum",
}
PUBLISH = {
    "contentType": "content_type",
    "responseTopic": "response_topic",
    "correlationData": "correlation",
    "messageExpiryInterval": "expiry",
    "topicAlias": "alias",
}
FAST = 20  # milliseconds until the library reconnects


class Node:
    """The Node.js process; passes its answers and events to the peers."""

    def __init__(self) -> None:
        command = ["node", str(SCRIPT), str(LIBRARY)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._peers: dict[str, JsPeer] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def name(self, peer: JsPeer) -> str:
        """Register a client; return its name."""
        name = str(next(self._numbers))
        self._peers[name] = peer
        return name

    def ask(self, client: str, operation: str, **details: Any) -> Any:
        """Have a client do an operation; return its result. Raises ``Refused`` with the reason code of the server."""
        number = next(self._numbers)
        line = json.dumps({"id": number, "client": client, "operation": operation, **_packed(details)})
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        wait_until(lambda: number in self._answers or self._process.poll() is not None, f"MQTT.js: {operation}")
        answer = self._answers.pop(number)
        error = answer.get("error")
        if error is not None:
            if isinstance(error["code"], int):
                raise Refused(error["code"])
            raise AssertionError(f"MQTT.js: {operation}: {error['text']}")
        return _unpacked(answer["result"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "id" in said:
                self._answers[said["id"]] = said
            else:
                self._peers[said["client"]].told(said["event"], _unpacked(said["detail"]))


class JsPeer(Peer):
    kind = "mqttjs"
    versions = (V31, V311, V5)

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._name = ""
        self._version = V311

    # Connections

    def connect(self, options: Options) -> Greeting:
        self._version = options.version
        self._name = self._node.name(self)
        scheme = ("ws" if options.web else "mqtt") + ("" if options.tls is None else "s")
        url = f"{scheme}://127.0.0.1:{options.port}{'/mqtt' if options.web else ''}"
        packet = self._ask("connect", url=url, options=_options(options))
        found = packet.get("properties") or {}
        for filter in options.keeps:
            self.subscribe(filter)  # the library subscribes to it again after each reconnect
        return Greeting(
            packet["sessionPresent"], found.get("assignedClientIdentifier"), found.get("receiveMaximum"),
            found.get("maximumPacketSize"), found.get("topicAliasMaximum"),
        )  # fmt: skip

    def leave(self, expiry: int | None = None) -> None:
        name, self._name = self._name, ""
        if name:
            extra = {} if expiry is None else {"properties": {"sessionExpiryInterval": expiry}}
            self._node.ask(name, "end", options=extra)

    # Use

    def subscribe(self, filter: str, wish: Wish = QOS1) -> int:
        options: dict[str, Any] = {"qos": wish.qos}
        if self._version == V5:
            options |= {"nl": wish.no_local, "rap": wish.as_published, "rh": wish.handling}
        if wish.identifier:
            options["properties"] = {"subscriptionIdentifier": wish.identifier}
        code = self._ask("subscribe", filter=filter, options=options)[0]
        assert isinstance(code, int)
        return code

    def unsubscribe(self, filter: str) -> int | None:
        codes = self._ask("unsubscribe", filter=filter)
        return codes[0] if codes else None

    def publish(
        self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, props: Props = PLAIN
    ) -> int | None:
        options = {"qos": qos, "retain": retain, "properties": _publish(props)}
        code = self._ask("publish", topic=topic, payload=payload, options=options)
        assert isinstance(code, int)
        return code

    def send(self, topic: str, payload: bytes) -> None:
        self._ask("send", topic=topic, payload=payload, options={"qos": 1})

    def pipeline(self, topic: str, payloads: Sequence[bytes]) -> None:
        self._publish_all("pipeline" if self._version == V5 else "rush", topic, payloads)

    def rush(self, topic: str, payloads: Sequence[bytes]) -> None:
        """As ``pipeline``, but ignores the server's receive maximum."""
        self._publish_all("rush", topic, payloads)

    def _publish_all(self, how: str, topic: str, payloads: Sequence[bytes]) -> None:
        codes = self._ask(how, topic=topic, payloads=list(payloads), options={"qos": 1})
        assert codes == [0] * len(payloads)

    def release(self) -> None:
        raise NotImplementedError("MQTT.js handles one packet after the other, so it cannot hold a message")

    def _ask(self, operation: str, **details: Any) -> Any:
        return self._node.ask(self._name, operation, **details)

    def told(self, event: str, detail: Any) -> None:
        """An event of the library."""
        record = self.record
        if event == "message":
            record.received.append(_message(detail))
        elif event == "connect":
            record.connects += 1
        elif event == "disconnect":
            record.ends.append(detail["reasonCode"])
        elif event == "close":
            record.closes += 1
        elif event == "suback":
            record.subacks.append(detail["granted"])


def _options(options: Options) -> dict[str, Any]:
    v5 = options.version == V5
    chosen: dict[str, Any] = {
        "clientId": options.client_id,
        "protocolVersion": options.version,
        "protocolId": "MQIsdp" if options.version == V31 else "MQTT",
        "clean": options.clean,
        "reconnectPeriod": FAST if options.reconnect else 0,
        "autoAssignTopicAlias": options.alias_itself,
    }
    if options.user is not None:
        chosen["username"] = options.user
    if options.password is not None:
        chosen["password"] = options.password
    if options.tls is not None:
        files = {"ca": options.tls.ca, "cert": options.tls.cert, "key": options.tls.key}
        chosen |= {name: file.read_text() for name, file in files.items() if file is not None}
    if v5:
        chosen["properties"] = {name: getattr(options, own) for name, own in CONNECT.items() if getattr(options, own)}
    if options.origin:
        chosen["wsOptions"] = {"origin": options.origin}
    will = options.will
    if will is not None:
        chosen["will"] = {"topic": will.topic, "payload": will.payload, "qos": will.qos, "retain": will.retain}
        if v5:
            chosen["will"]["properties"] = {"willDelayInterval": will.delay}
    return chosen


def _publish(props: Props) -> dict[str, Any]:
    found = {name: getattr(props, own) for name, own in PUBLISH.items() if getattr(props, own)}
    if props.text:
        found["payloadFormatIndicator"] = True
    if props.user:
        found["userProperties"] = {}
        for name, value in props.user:
            found["userProperties"].setdefault(name, []).append(value)
    return found


def _message(detail: dict[str, Any]) -> Message:
    found = detail["properties"]
    names = {own: found[name] for name, own in PUBLISH.items() if name in found}
    user: list[tuple[str, str]] = []
    for name, values in (found.get("userProperties") or {}).items():
        user += [(name, value) for value in ([values] if isinstance(values, str) else values)]
    identifiers = found.get("subscriptionIdentifier", [])
    text = int(found.get("payloadFormatIndicator", False))
    props = Props(
        user=tuple(user), text=text,
        identifiers=tuple(identifiers) if isinstance(identifiers, list) else (identifiers,), **names,
    )  # fmt: skip
    return Message(detail["topic"], detail["payload"], detail["qos"], detail["retain"], detail["dup"], props)


def _packed(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _packed(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(inner) for inner in value]
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"base64"}:
            return base64.b64decode(value["base64"])
        return {key: _unpacked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unpacked(inner) for inner in value]
    return value
