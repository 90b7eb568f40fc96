// A "Keep best" button on the node that climbs: ends the climb, and the graph goes on with the best so far.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const EVENT = "dno_climb"; // {climb, node, prompt, running}, from nodes/host/keeping.py
const ROUTE = "/dno/keep";
const LABEL = "Keep best";
const climbs = new Map(); // id -> {node, shown: [{node, button, size, grown}]}

function client() {
  return api.clientId ?? api.initialClientId ?? null;
}

function told(severity, detail) {
  app.extensionManager?.toast?.add?.({ severity, summary: "DNO", detail, life: 4000 });
}

// Without an id: every climb that this page has started.
async function keep(climb) {
  const wanted = climb ? { climb } : { client: client() };
  const body = JSON.stringify(wanted);
  const headers = { "Content-Type": "application/json" };
  const answer = await api.fetchApi(ROUTE, { method: "POST", headers, body });
  const { asked } = answer.ok ? await answer.json() : { asked: 0 };
  told(asked ? "info" : "warn", asked ? "Keeping the best so far." : "No climb is running.");
}

// "7:3" is node 3 in the subgraph node 7: that node, and those around it.
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

function addButton(node, climb) {
  if (node.widgets?.some((widget) => widget.dnoClimb === climb)) return null;
  const size = [...node.size];
  const button = node.addWidget("button", LABEL, null, () => keep(climb), { serialize: false });
  button.serialize = false; // nothing of it is saved with the workflow
  button.dnoClimb = climb;
  button.tooltip = "Ends the climb before its next step; the graph goes on with the best so far.";
  node.setDirtyCanvas?.(true, true);
  return { node, button, size, grown: [...node.size] };
}

function removeButton({ node, button, size, grown }) {
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
  held.shown.push(...nodesOf(node).map((each) => addButton(each, climb)).filter(Boolean));
}

function hide(climb) {
  climbs.get(climb)?.shown.forEach(removeButton);
  climbs.delete(climb);
}

// After the page was loaded or the server came back: what still climbs, and nothing else.
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
  afterConfigureGraph() {
    return refresh(); // another workflow is open now, or the page is new
  },
});
