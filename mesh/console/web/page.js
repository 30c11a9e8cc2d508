// Reads /api/status every two seconds and shows it. Values enter the page as text only, never as HTML.
"use strict";

const PERIOD = 2000;          // ms between two readings
const DEADLINE = 8000;        // ms for one answer
const SAMPLES = 6;            // a rate is a mean over ten seconds: current enough, and steady
const HISTORY = 90;           // points of the curve, which are three minutes
const BROKER = ["mesh_messages_published_total", "mesh_messages_delivered_total"];
const WAYS = {
  door: ["upstream", "downstream"].map((way) => `mesh_relayed_packets_total{direction="${way}"}`),
  edge: BROKER,
  core: BROKER,
};

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const samples = new Map();    // node → its last counters, each with the node's uptime
const history = [];
let readAt = 0;
let found = "";               // the edge of the vehicle that the user searched for

// Numbers and times as text.

const count = (value) => (value < 100000 ? whole : short).format(value);
const perSecond = (value) => value === null ? "–" : value > 0 && value < 10 ? value.toFixed(1) : count(Math.round(value));

function since(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${(seconds / size).toFixed(1)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

// Messages per second: the difference of two samples of one process, divided by the difference of its uptimes.

function counters(node) {
  const ways = WAYS[node.role];
  if (!ways || node.state !== "ready") return null;
  return ways.map((series) => node.figures[series] || 0);
}

function rates(node) {
  const now = counters(node);
  if (!now) {
    samples.delete(node.name);
    return null;
  }
  let row = samples.get(node.name);
  if (!row || row[0].pid !== node.pid) samples.set(node.name, row = []);
  const last = row[row.length - 1];
  if (!last || node.uptime > last.uptime) row.push({ pid: node.pid, uptime: node.uptime, counters: now });
  if (row.length > SAMPLES) row.shift();
  const first = row[0], newest = row[row.length - 1];
  const seconds = newest.uptime - first.uptime;
  return seconds > 0 ? now.map((_, way) => Math.max(0, newest.counters[way] - first.counters[way]) / seconds) : null;
}

// The nodes.

function figuresOf(node, rate) {
  const [up, down] = rate || [null, null];
  const traffic = node.role === "door" ? ["packets up /s", "down /s"] : ["messages /s", "deliveries /s"];
  const pairs = [["connections", node.connections]];
  if (node.role !== "door") pairs.push(["sessions", node.sessions], ["queued", node.queued]);
  pairs.push([traffic[0], up, true], [traffic[1], down, true], ["restarts", node.restarts]);
  return pairs;
}

function show(card, node, rate) {
  card.dataset.state = node.state;
  card.classList.toggle("found", node.name === found && node.role === "edge");
  card.querySelector(".name").textContent = node.name;
  card.querySelector(".word").textContent = node.state === "ready" ? `ready for ${since(node.uptime)}` : node.state;
  card.querySelector(".listen").textContent = (node.listen || []).join("  ");
  card.querySelector(".detail").textContent = node.detail || "";
  const list = card.querySelector("dl");
  list.replaceChildren(...figuresOf(node, rate).map(([name, value, isRate]) => {
    const pair = document.createElement("div"), term = document.createElement("dt"), data = document.createElement("dd");
    term.textContent = name;
    data.textContent = isRate ? perSecond(value) : count(value);
    data.classList.toggle("zero", !value);
    pair.append(term, data);
    return pair;
  }));
}

function place(nodes, rateOf) {
  for (const column of document.querySelectorAll(".cards")) {
    const wanted = nodes.filter((node) => node.role === column.dataset.role);
    const cards = new Map([...column.children].map((card) => [card.dataset.node, card]));
    column.replaceChildren(...wanted.map((node) => {
      const card = cards.get(node.name) || byId("card").content.firstElementChild.cloneNode(true);
      card.dataset.node = node.name;
      show(card, node, rateOf.get(node.name));
      return card;
    }));
  }
  byId("others").replaceChildren(...nodes.filter((node) => !WAYS[node.role]).map(part));
  draw();
}

function part(node) {
  const line = document.createElement("span"), dot = document.createElement("i"), name = document.createElement("b");
  line.className = "part";
  line.dataset.state = node.state;
  dot.className = "dot";
  name.textContent = node.name;
  line.append(dot, name, [node.state, node.detail || (node.listen || []).join("  ")].filter(Boolean).join(" · "));
  return line;
}

// The lines: each node is joined to a hub between its column and the next, so that a large mesh stays readable.

function draw() {
  const canvas = byId("lines"), frame = canvas.getBoundingClientRect();
  const columns = [...document.querySelectorAll(".cards")].map((column) => [...column.children].map((card) => {
    const box = card.getBoundingClientRect();
    const middle = box.top + box.height / 2 - frame.top;
    return { left: box.left - frame.left, right: box.right - frame.left, middle, up: card.dataset.state === "ready" };
  }));
  const shapes = [];
  for (let gap = 0; gap + 1 < columns.length; gap += 1) {
    const from = columns[gap], to = columns[gap + 1];
    if (!from.length || !to.length) continue;
    const all = [...from, ...to].map((card) => card.middle);
    const x = (from[0].right + to[0].left) / 2, y = (Math.min(...all) + Math.max(...all)) / 2;
    for (const card of from) shapes.push(curve(card.right, card.middle, x, y, card.up));
    for (const card of to) shapes.push(curve(card.left, card.middle, x, y, card.up));
    shapes.push(shape("circle", { cx: x, cy: y, r: 4 }));
  }
  canvas.replaceChildren(...shapes);
}

function curve(x, y, hubX, hubY, up) {
  const half = (x + hubX) / 2;
  return shape("path", { d: `M${x} ${y} C${half} ${y} ${half} ${hubY} ${hubX} ${hubY}`, class: up ? "up" : "down" });
}

function shape(kind, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// The totals. Every message passes through one edge, so the sum over the edges counts each message once.

function totals(nodes, rateOf) {
  const sum = (role, figure) => nodes.filter((node) => node.role === role).reduce((all, node) => all + node[figure], 0);
  const known = nodes.filter((node) => node.role === "edge" && rateOf.get(node.name));
  const rate = known.length ? known.reduce((all, node) => all + rateOf.get(node.name)[0], 0) : null;
  byId("vehicles").textContent = count(sum("door", "connections"));
  byId("sessions").textContent = count(sum("edge", "sessions"));
  byId("queued").textContent = count(sum("edge", "queued"));
  byId("rate").textContent = perSecond(rate);
  if (rate !== null) history.push(rate);
  if (history.length > HISTORY) history.shift();
  const top = Math.max(...history, 1), step = 120 / (HISTORY - 1), start = 120 - step * (history.length - 1);
  const points = history.map((value, at) => `${(start + at * step).toFixed(1)} ${(30 - 27 * value / top).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join(" L")}` : "";
  byId("history").querySelector(".line").setAttribute("d", line);
  byId("history").querySelector(".area").setAttribute("d", line && `${line} L120 32 L${start.toFixed(1)} 32 Z`);
}

// Reading.

async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(DEADLINE) });
  return { status: response.status, body: await response.json() };
}

async function refresh() {
  let trouble = "";
  try {
    const { status, body } = await ask("/api/status");
    if (status === 200) {
      const rateOf = new Map(body.nodes.map((node) => [node.name, rates(node)]));
      totals(body.nodes, rateOf);
      place(body.nodes, rateOf);
      readAt = Date.now();
      trouble = body.error;
    } else {
      trouble = body.error;
    }
    byId("mesh").textContent = body.mesh || "mesh";
    document.title = `${body.mesh || "mesh"} · ${body.state || "unknown"}`;
    setState(body.state || "unknown");
  } catch (error) {
    trouble = "The console does not answer. Trying again.";
    setState("unknown");
  }
  byId("trouble").textContent = trouble;
  byId("trouble").hidden = !trouble;
  tell();
}

function setState(state) {
  byId("state").dataset.state = state;
  byId("state").textContent = state;
}

function tell() {
  const age = (Date.now() - readAt) / 1000;
  byId("updated").textContent = !readAt ? "not read yet" : age < 5 ? "live, every 2 s" : `last read ${since(age)} ago`;
  byId("main").classList.toggle("stale", age > 5);
}

async function turn() {
  if (!document.hidden) await refresh();
  setTimeout(turn, PERIOD);
}

// The search.

byId("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  const vehicle = byId("vehicle").value.trim(), answer = byId("answer");
  found = "";
  let text;
  try {
    const { status, body } = await ask(`/api/vehicles/${encodeURIComponent(vehicle)}`);
    found = status === 200 ? body.edge : "";
    text = found ? `${vehicle} is on ${body.edge}, pool ${body.pool}, epoch ${body.epoch}` : body.error;
  } catch (error) {
    text = "The console does not answer.";
  }
  answer.textContent = text;
  answer.classList.toggle("none", !found);
  answer.hidden = false;
  for (const card of document.querySelectorAll('[data-role="edge"] .card')) {
    card.classList.toggle("found", card.dataset.node === found);
  }
});

new ResizeObserver(draw).observe(byId("picture"));
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(tell, 1000);
turn();
