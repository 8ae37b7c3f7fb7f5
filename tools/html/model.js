"use strict";
// The data of the page, and what follows from it. Text from a model only ever enters the page as
// text: `make` knows no markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SITES = new Map(DATA.sites.map((site) => [site.site, site]));
const NUMBERS = new Map(((DATA.comparison || {}).sites || []).map((row) => [row.site, row]));

const STANDINGS = {
  int8: { word: "int8", about: "computed by an int8 kernel" },
  loop: { word: "int8 in, float inside", about: "reads and writes int8 values, computed in float between them" },
  missed: { word: "missed", about: "was planned as int8, but reached no int8 kernel" },
  float: { word: "float", about: "stays float: click it for the reason" },
  none: { word: "no arithmetic", about: "inputs, outputs, and what only moves values: nothing to quantize" },
};

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "text", "tspan", "marker", "defs", "title"].includes(tag);
  const node = svg && tag !== "title" || attributes.svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "svg" || value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

function standingOf(site) {
  if (!site || site.idle || site.standing === "other" || site.standing === "gone") return "none";
  if (site.standing === "float") return "float";
  const status = site.kernel ? site.kernel.status : "planned";
  return { float: "loop", missed: "missed" }[status] || "int8";
}

/** Decibels as a number: a file spells an infinite one "inf". */
function decibels(fidelity) {
  if (!fidelity) return null;
  return typeof fidelity.sqnr === "number" ? fidelity.sqnr : fidelity.sqnr === "inf" ? Infinity : null;
}

function sqnrOf(site, by) {
  const anchor = site && site.match ? site.match.anchor : site && site.site;
  const row = NUMBERS.get(anchor);
  return row ? decibels(row[by]) : null;
}

function showDecibels(value) {
  if (value === null || value === undefined) return "";
  return value === Infinity ? "exact" : `${value.toFixed(1)} dB`;
}

function showCount(value) {
  if (value === null || value === undefined) return "unknown";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return String(value);
}

function share(part, whole) {
  if (!whole) return "0 %";
  const percent = (100 * part) / whole;
  return percent > 0 && percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(percent > 99 && percent < 100 ? 2 : 1)} %`;
}

/** The stages with nodes and boxes as objects. */
const STAGES = DATA.stages.map((stage) => {
  if (stage.why) return stage;
  const boxes = stage.boxes.map(([path, kind], id) => ({ id, path, kind, nodes: [], counts: {} }));
  const nodes = stage.nodes.map(([name, kind, title, details, around, sites], id) => {
    const site = SITES.get(sites[0]);
    const node = { id, name, kind, title, details, boxes: around, sites, site };
    node.standing = site ? standingOf(site) : kind === "lowered" ? "int8" : "none";
    node.macs = site ? (DATA.work[site.site] || [0])[0] || 0 : 0;
    for (const box of around) {
      boxes[box].nodes.push(node);
      boxes[box].counts[node.standing] = (boxes[box].counts[node.standing] || 0) + 1;
    }
    return node;
  });
  const anchor = (node) => (node.site && node.site.match ? node.site.match.anchor : "");
  const edges = stage.edges.map(([source, target, kind, label]) => {
    // What one kernel computes never leaves it as a float tensor, though the q/dq graph has it so.
    const inside = kind === "float" && anchor(nodes[source]) !== "" && anchor(nodes[source]) === anchor(nodes[target]);
    return { source, target, kind: inside ? "inside" : kind, label };
  });
  return { ...stage, boxes, nodes, edges, byPath: new Map(boxes.map((box) => [box.path, box])) };
});
const KEPT = STAGES.filter((stage) => !stage.why);

/** The node that stands for a site; for a name without an explanation, the node of that name. */
function nodeOf(stage, name) {
  const means = SITES.has(name) ? (node) => node.sites.includes(name) : (node) => node.name === name;
  return stage.nodes.find((node) => node.sites[0] === name) || stage.nodes.find(means);
}

function worst(nodes, by) {
  const known = nodes.map((node) => sqnrOf(node.site, by)).filter((value) => value !== null);
  return known.length ? Math.min(...known) : null;
}

/** SQNR from 10 dB, where little is left, to 40 dB, which 8 bits reach at their best. */
function heatClass(value) {
  if (value === null) return "heat-none";
  return `heat-${Math.max(0, Math.min(4, Math.floor((value - 10) / 6)))}`;
}
