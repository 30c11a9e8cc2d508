// MQTT.js under remote control: reads one JSON command per line, and writes answers and events in the same form.
//
//   node mqttjs.mjs FOLDER      FOLDER/node_modules holds the package mqtt
//
// It knows no test and adds no behaviour to the library. It ends when its standard input is closed.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const mqtt = createRequire(`${process.argv[2]}/`)("mqtt");
const clients = new Map();

function tell(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

// Buffers travel as {base64}, in both directions.
function packed(value) {
  if (Buffer.isBuffer(value)) return { base64: value.toString("base64") };
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(packed);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, packed(inner)]));
}

function unpacked(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(unpacked);
  if (typeof value.base64 === "string") return Buffer.from(value.base64, "base64");
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unpacked(inner)]));
}

function watch(client, name) {
  const say = (event) => (detail) => tell({ client: name, event, detail: packed(detail ?? null) });
  for (const event of ["connect", "disconnect", "close"]) client.on(event, say(event));
  client.on("error", (error) => tell({ client: name, event: "error", detail: { code: error.code, text: String(error) } }));
  client.on("packetreceive", (packet) => {
    if (packet.cmd === "suback") say("suback")({ granted: packet.granted });
  });
  client.on("message", (topic, payload, packet) => {
    const { qos, retain, dup, properties } = packet;
    say("message")({ topic, payload, qos, retain, dup, properties: properties ?? {}, raw: packet.topic });
  });
}

function connect(name, { url, options }) {
  const client = mqtt.connect(url, options);
  clients.set(name, client);
  watch(client, name);
  return new Promise((resolve, reject) => {
    client.once("connect", resolve);
    client.once("error", reject);
    // What a server answers to a WebSocket's request is no error of the library: it tries again, or is closed.
    if (!options.reconnectPeriod) client.once("close", () => reject(new Error("closed before CONNACK")));
  });
}

// The reason code of the acknowledgement: on success the library gives no packet, otherwise an error with the code.
function publish(client, { topic, payload, options }) {
  return client.publishAsync(topic, payload, options).then(
    () => 0,
    (error) => (typeof error.code === "number" ? error.code : Promise.reject(error)),
  );
}

function subscribe(client, { filter, options }) {
  return new Promise((resolve, reject) => {
    client.subscribe(filter, options, (error, granted, packet) => (packet ? resolve(packet.granted) : reject(error)));
  });
}

function unsubscribe(client, { filter }) {
  return new Promise((resolve, reject) => {
    client.unsubscribe(filter, (error, packet) => (error ? reject(error) : resolve(packet.granted ?? null)));
  });
}

function send(client, { topic, payload, options }) {
  client.publish(topic, payload, options);
  return null;
}

function rush(client, { topic, payloads, options }) {
  return Promise.all(payloads.map((payload) => publish(client, { topic, payload, options })));
}

// Keeps to the server's receive maximum, which the library leaves to its user.
async function pipeline(client, { topic, payloads, options }) {
  const window = client.serverProperties?.receiveMaximum ?? 65535;
  const running = new Set();
  const codes = [];
  for (const payload of payloads) {
    if (running.size >= window) await Promise.race(running);
    const one = publish(client, { topic, payload, options }).then((code) => {
      codes.push(code);
      running.delete(one);
    });
    running.add(one);
  }
  await Promise.all(running);
  return codes;
}

// Forces the end without a connection, because no answers would come.
function end(client, { options }) {
  return client.endAsync(!client.connected, options ?? {}).then(() => null);
}

const OPERATIONS = { publish, subscribe, unsubscribe, send, rush, pipeline, end };

async function handle({ id, client, operation, ...rest }) {
  const details = unpacked(rest);
  try {
    const work = operation === "connect" ? connect(client, details) : OPERATIONS[operation](clients.get(client), details);
    tell({ id, result: packed((await work) ?? null) });
  } catch (error) {
    tell({ id, error: { code: error.code ?? null, text: String(error) } });
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => void handle(JSON.parse(line)))
  .on("close", () => process.exit(0));
