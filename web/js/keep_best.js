// "Keep best" ends a climb, and the graph goes on with the best so far. The button stands on the DNO
// samplers always, because Nodes 2.0 shows no widget that comes later; on any other node that climbs
// (SamplerCustomAdvanced, a subgraph around one) it comes and goes with the climb.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const EVENT = "dno_climb"; // {climb, node, prompt, running}, from nodes/host/keeping.py
const ROUTE = "/dno/keep";
const LABEL = "Keep best";
const TOOLTIP = "While it climbs: ends it before its next step; the graph goes on with the best so far.";
const SAMPLERS = ["DNOSampler", "DNOSamplerCustom"];
const climbs = new Map(); // id -> {node, shown: [{node, button, size, grown}]}

function client() {
  return api.clientId ?? api.initialClientId ?? null;
}

function tell(severity, detail) {
  app.extensionManager?.toast?.add?.({ severity, summary: "DNO", detail, life: 4000 });
}

// Without an id: every climb that this page has started.
async function keep(climb) {
  const body = JSON.stringify(climb ? { climb } : { client: client() });
  const headers = { "Content-Type": "application/json" };
  const answer = await api.fetchApi(ROUTE, { method: "POST", headers, body });
  const { asked } = answer.ok ? await answer.json() : { asked: 0 };
  if (asked) tell("info", "Keeping the best so far.");
  else tell("warn", "Nothing climbs now: the button works from the first picture on.");
}

// "7:3" is node 3 in the subgraph node 7: that node last, before it those around it.
function nodesOf(id) {
  const found = [];
  let graph = app.rootGraph ?? app.graph;
  for (const part of String(id).split(":")) {
    const node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    if (!node) break;
    found.push(node);
    graph = node.subgraph;
  }
  return found;
}

// The climb of a DNO Sampler's own button; the custom form climbs in another node.
function keepOf(node) {
  const own = [...climbs].find(([, { node: id }]) => nodesOf(id).at(-1) === node);
  const elsewhere = node.comfyClass === "DNOSampler" && climbs.size > 0;
  if (own) return keep(own[0]);
  return elsewhere ? tell("warn", "Another node climbs now.") : keep();
}

function addButton(node, press) {
  const button = node.addWidget("button", LABEL, null, press, { serialize: false });
  button.serialize = false; // nothing of it is saved with the workflow
  button.tooltip = TOOLTIP;
  return button;
}

function addPassing(node, climb) {
  if (node.widgets?.some((widget) => widget.name === LABEL)) return null;
  const size = [...node.size];
  const button = addButton(node, () => keep(climb));
  node.setDirtyCanvas?.(true, true);
  return { node, button, size, grown: [...node.size] };
}

function removePassing({ node, button, size, grown }) {
  const place = node.widgets?.indexOf(button) ?? -1;
  if (place < 0) return;
  button.onRemove?.();
  node.widgets.splice(place, 1);
  const [width, height] = node.size;
  const untouched = width === grown[0] && height === grown[1];
  if (untouched && height !== size[1]) node.setSize?.([width, size[1]]);
  node.setDirtyCanvas?.(true, true);
}

function show({ climb, node }) {
  const held = climbs.get(climb) ?? { node, shown: [] };
  climbs.set(climb, held);
  held.shown.push(...nodesOf(node).map((each) => addPassing(each, climb)).filter(Boolean));
}

function hide(climb) {
  climbs.get(climb)?.shown.forEach(removePassing);
  climbs.delete(climb);
}

// After a workflow was opened or the server came back: what still climbs, and nothing else.
async function refresh() {
  [...climbs.keys()].forEach(hide);
  const mine = client();
  const answer = await api.fetchApi(mine ? `${ROUTE}?client=${encodeURIComponent(mine)}` : ROUTE);
  if (answer.ok) (await answer.json()).forEach(show);
}

app.registerExtension({
  name: "DNO.KeepBest",
  commands: [
    { id: "DNO.KeepBest", label: "Keep the best so far", icon: "pi pi-check", function: () => keep() },
  ],
  menuCommands: [{ path: ["Extensions", "DNO"], commands: ["DNO.KeepBest"] }],
  setup() {
    api.addEventListener(EVENT, ({ detail }) => (detail.running ? show(detail) : hide(detail.climb)));
    api.addEventListener("reconnected", refresh);
  },
  nodeCreated(node) {
    if (SAMPLERS.includes(node.comfyClass)) addButton(node, () => keepOf(node));
  },
  afterConfigureGraph: refresh,
});
