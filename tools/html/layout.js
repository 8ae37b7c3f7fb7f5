// Which nodes are seen while some modules are closed, and where they stand.

const PEN = document.createElement("canvas").getContext("2d");
const FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif";

function textWidth(text, font) {
  PEN.font = `${font} ${FONT}`;
  return PEN.measureText(text).width;
}

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** The graph as seen with the modules `open` (paths) opened: closed ones are one item each. */
function visibleGraph(stage, open) {
  const items = new Map();
  const keys = stage.nodes.map((node) => {
    const at = node.boxes.findIndex((box) => !open.has(stage.boxes[box].path));
    const key = at < 0 ? `n${node.id}` : `b${node.boxes[at]}`;
    if (!items.has(key)) {
      const around = at < 0 ? node.boxes : node.boxes.slice(0, at);
      items.set(key, at < 0 ? { key, node, around } : { key, box: stage.boxes[node.boxes[at]], around });
    }
    return key;
  });
  const edges = new Map();
  for (const edge of stage.edges) {
    const source = keys[edge.source], target = keys[edge.target];
    if (source === target) continue;
    const key = `${source}>${target}`;
    if (!edges.has(key)) edges.set(key, { source, target, kinds: new Set(), labels: new Set() });
    edges.get(key).kinds.add(edge.kind);
    if (edge.label) edges.get(key).labels.add(edge.label);
  }
  return { items, edges: [...edges.values()], keys };
}

/** Paths of the modules to open at first: as many levels as keep the view small. */
function firstOpen(stage, limit = 40) {
  const depth = Math.max(0, ...stage.nodes.map((node) => node.boxes.length));
  for (let level = depth; level > 0; level -= 1) {
    const open = new Set(stage.nodes.flatMap((n) => n.boxes.slice(0, level).map((b) => stage.boxes[b].path)));
    if (visibleGraph(stage, open).items.size <= limit) return open;
  }
  return new Set();
}

function wordsOf(item, colour) {
  if (item.box) return wordsOfBox(item.box, item.around.length ? item.parentPath : "", colour);
  const node = item.node;
  const title = cut(node.title.replace(/^onednn\./, ""), 38);
  const value = colour === "standing" ? null : sqnrOf(node.site, colour);
  if (value !== null) return [title, showDecibels(value)];
  if (node.standing === "none") return [title, cut(node.site && node.site.reason || node.details[0] || "", 38)];
  const kernel = node.site && node.site.kernel;
  const part = node.macs ? `, ${share(node.macs, DATA.report.balance.macs)} of arithmetic` : "";
  const said = node.standing === "float" ? `float${part}${node.site.reason ? `: ${node.site.reason}` : ""}`
    : [STANDINGS[node.standing].word, kernel && kernel.eager !== "dq-op-q" ? kernel.eager : ""].filter(Boolean).join(" · ");
  return [title, cut(said, 38)];
}

function wordsOfBox(box, outer, colour) {
  const leaf = outer && box.path.startsWith(`${outer}.`) ? box.path.slice(outer.length + 1) : box.path;
  const title = cut(`${leaf || "model"}  ${box.kind}`, 40);
  const value = colour === "standing" ? null : worst(box.nodes, colour);
  const counts = Object.keys(STANDINGS)
    .filter((key) => key !== "none" && box.counts[key])
    .map((key) => `${box.counts[key]} ${STANDINGS[key].word}`);
  return [title, value !== null ? `worst ${showDecibels(value)}` : counts.join(" · ") || `${box.nodes.length} without arithmetic`];
}

/** Down from one item, then to the nearer side of another. */
function roundTheCorner(source, target) {
  const side = source.x < target.x ? -1 : 1;
  const end = { x: target.x + (side * target.width) / 2, y: target.y };
  const start = { x: source.x, y: source.y + (source.height / 2) * Math.sign(target.y - source.y) };
  return [start, { x: start.x, y: end.y }, end];
}

/** Place the visible graph with dagre; gives items with x, y, width, height, and groups. */
function layOut(stage, open, colour) {
  const seen = visibleGraph(stage, open);
  const graph = new dagre.graphlib.Graph({ compound: true });
  graph.setGraph({ rankdir: "TB", nodesep: 22, ranksep: 36, edgesep: 12, marginx: 24, marginy: 24 });
  graph.setDefaultEdgeLabel(() => ({}));
  const groups = new Map();
  for (const item of seen.items.values()) {
    item.parentPath = item.around.length ? stage.boxes[item.around[item.around.length - 1]].path : "";
    item.words = wordsOf(item, colour);
    const widths = [textWidth(item.words[0], "600 13px"), textWidth(item.words[1], "11px")];
    const node = { width: Math.ceil(Math.max(70, ...widths) + (item.box ? 46 : 28)), height: item.words[1] ? 42 : 28 };
    graph.setNode(item.key, node);
    let parent = "";
    for (const box of item.around) {
      const key = `g${box}`;
      if (!groups.has(key)) {
        groups.set(key, { key, box: stage.boxes[box], depth: groups.size });
        graph.setNode(key, {});
        if (parent) graph.setParent(key, parent);
      }
      parent = key;
    }
    if (parent) graph.setParent(item.key, parent);
  }
  // What many read, as a mask, would pull the drawing apart: only its first reader is laid out by it.
  const readers = new Map();
  for (const edge of seen.edges) readers.set(edge.source, (readers.get(edge.source) || 0) + 1);
  const placed = new Set();
  for (const edge of seen.edges) {
    edge.loose = readers.get(edge.source) > 4 && placed.has(edge.source);
    placed.add(edge.source);
  }
  for (const edge of seen.edges.filter((each) => !each.loose)) graph.setEdge(edge.source, edge.target, { weight: edge.kinds.has("int8") || edge.kinds.has("inside") ? 8 : 1 });
  dagre.layout(graph);
  for (const item of [...seen.items.values(), ...groups.values()]) Object.assign(item, graph.node(item.key));
  for (const edge of seen.edges) {
    edge.points = edge.loose ? roundTheCorner(seen.items.get(edge.source), seen.items.get(edge.target)) : graph.edge(edge.source, edge.target).points;
  }
  const size = graph.graph();
  return { ...seen, groups: [...groups.values()], width: size.width || 1, height: size.height || 1 };
}
