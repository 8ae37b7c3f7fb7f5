// The report, and all sites as a table.

function meter(title, part, whole, words) {
  return make("div", { class: "meter" },
    make("div", { class: "meter-name" }, title, make("b", {}, share(part, whole))),
    make("div", { class: "track" }, make("div", { class: "fill", style: `width:${whole ? (100 * part) / whole : 0}%` })),
    make("small", {}, words));
}

function tableOf(heads, rows) {
  return make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell) => make("td", {}, cell)))))));
}

/** Float operators that have work to do, or a reason, gathered by reason: heaviest first. */
function floatReasons() {
  const reasons = new Map();
  for (const site of DATA.sites.filter((each) => ["float", "missed"].includes(standingOf(each)))) {
    const why = site.reason || (site.kernel && site.kernel.reason) || "no template mentions it";
    const [macs, weights] = DATA.work[site.site] || [0, 0];
    const key = `${site.op} ${why.replace(/\w+_\d+/g, "…")}`;
    const row = reasons.get(key) || { op: site.op, why, sites: [], macs: 0, weights: 0, remedies: site.remedies || [] };
    row.sites.push(site.site);
    row.macs += macs || 0;
    row.weights += weights || 0;
    reasons.set(key, row);
  }
  return [...reasons.values()].sort((a, b) => b.macs - a.macs || b.weights - a.weights || b.sites.length - a.sites.length);
}

function lossRows() {
  return [...NUMBERS.values()]
    .map((row) => ({ row, own: decibels(row.own) }))
    .filter((each) => each.own !== null && each.own !== Infinity)
    .sort((a, b) => a.own - b.own);
}

function showLoss(select) {
  if (!DATA.comparison) return make("p", { class: "note" }, "Not measured. Write the page with ", make("code", {}, "result.html(path, result.compare(batches))"), " to see it here and as colours in the graph.");
  const { output, model, calls } = DATA.comparison;
  const worstRows = lossRows().slice(0, 10);
  return [
    make("p", {}, output ? [make("b", {}, `The results keep ${showDecibels(decibels(output))} `), `signal to noise against the float model (cosine ${number(output.cosine)}, ${calls} call${calls === 1 ? "" : "s"}). 40 dB is 1 % error, 20 dB is 10 %.`] : "The model has no float result."),
    model && decibels(model) < 60 ? make("p", { class: "alarm" }, `The float graph itself is not the model: ${showDecibels(decibels(model))} between them.`) : null,
    tableOf(["layer", "operator", "own SQNR", "accumulated SQNR", "what is the matter, and what helps"], worstRows.map(({ row, own }) => [
      link(row.site, select, row.module || row.site),
      row.op.replace(/^aten\./, "").replace(/\.\w+$/, ""),
      make("span", { class: `heat ${heatClass(own)}` }, showDecibels(own)),
      make("span", { class: `heat ${heatClass(decibels(row.accumulated))}` }, showDecibels(decibels(row.accumulated))),
      row.diagnoses.length ? make("span", {}, `${row.diagnoses[0].name}: ${row.diagnoses[0].message}. `, make("em", {}, row.diagnoses[0].remedy)) : "",
    ])),
    worstRows.every(({ row, own }) => !row.diagnoses.length && own > 30) ? make("p", {}, "No layer stands out: rounding to 8 bits gives such figures by itself.") : null,
    make("p", { class: "note" }, "Lowest own SQNR first; more dB are better. Own: the layer alone, with exact inputs. Accumulated: with the errors of all layers before it; a layer may lose less of what matters later than of all its values."),
  ];
}

function overview(select) {
  const { report, result } = DATA;
  if (!report) return [make("p", {}, "This page shows graphs only: reasons and kernels belong to a result.")];
  const { balance } = report;
  const counts = {};
  for (const site of DATA.sites.filter((each) => each.kind === "operator")) counts[standingOf(site)] = (counts[standingOf(site)] || 0) + 1;
  const reasons = floatReasons();
  return [
    report.headline ? make("p", { class: "alarm" }, report.headline) : null,
    make("div", { class: "meters" },
      meter("Arithmetic in int8", balance.macs - balance.float_macs, balance.macs, `${showCount(balance.macs - balance.float_macs)} of ${showCount(balance.macs)} multiply-accumulates`),
      meter("Weights in int8", balance.weight_bytes - balance.float_weight_bytes, balance.weight_bytes, `model: ${showCount(report.float_bytes)}B float, ${showCount(report.quantized_bytes)}B quantized`),
      meter("Planned sites that reached int8 kernels", (report.compiled ?? report.lowered ?? report.converted), report.planned, `${report.compiled ?? report.lowered ?? report.converted} of ${report.planned}${report.compiled === null ? "" : ", compiled"}`)),
    make("p", {}, Object.keys(STANDINGS).filter((key) => counts[key]).map((key) => make("span", { class: "count", title: STANDINGS[key].about }, badge(key), ` ${counts[key]} operators `))),
    make("h2", {}, "What is not int8, and why"),
    counts.none ? make("p", { class: "note" }, `${counts.none} operators that only move values, read no tensor or compute integers are left out here.`) : null,
    reasons.length ? tableOf(["operator", "how many", "why", "what would help", "of the arithmetic", "of the weights"], reasons.map((row) => [
      row.op.replace(/^aten\./, "").replace(/\.\w+$/, ""),
      make("span", {}, link(row.sites[0], select, `${row.sites.length}×`)),
      row.why,
      row.remedies.join("; "),
      row.macs ? share(row.macs, balance.macs) : "–",
      row.weights ? share(row.weights, balance.weight_bytes) : "–",
    ])) : make("p", {}, "Nothing: every operator is computed in int8."),
    make("h2", {}, "Where accuracy is lost"),
    showLoss(select),
    make("h2", {}, "By kind of operator"),
    tableOf(["operator", "planned", "converted", "on int8 kernels", "compiled", "kernels"], report.rows.map((row) => [
      row.label, row.planned, row.converted, row.reach === "kernel" ? row.lowered ?? "–" : `${row.reach}: no kernel of its own`, row.compiled ?? "–",
      Object.entries({ ...row.kernels, ...row.compiled_kernels }).map(([kernel, count]) => `${kernel} ×${count}`).join(", "),
    ])),
    report.scales.length || report.unused_rules.length ? [make("h2", {}, "Remarks"), make("ul", {}, [...report.scales, ...report.unused_rules].map((each) => make("li", {}, Object.values(each).filter((value) => typeof value === "string" && value).join(": "))))] : null,
    make("details", {}, make("summary", {}, "How it was made"),
      facts([["backend", result.backend], ["target", result.target], ["quantfx", result.version], ["policy", report.policy], ["not tried here", report.unverified]]),
      tableOf(["pass", "did"], report.passes.map(([name, stats]) => [name, Object.entries(stats).filter(([, count]) => count).map(([key, count]) => `${count} ${key}`).join(", ")]))),
  ];
}

const COLUMNS = [
  ["layer", (row) => row.site.module || "", (row, select) => link(row.name, select, row.site.module || row.name)],
  ["operator", (row) => row.op],
  ["standing", (row) => Object.keys(STANDINGS).indexOf(row.standing), (row) => badge(row.standing)],
  ["own SQNR", (row) => row.own, (row) => make("span", { class: `heat ${heatClass(row.own)}` }, showDecibels(row.own))],
  ["accumulated SQNR", (row) => row.accumulated, (row) => make("span", { class: `heat ${heatClass(row.accumulated)}` }, showDecibels(row.accumulated))],
  ["MACs", (row) => row.macs, (row) => (row.macs ? showCount(row.macs) : "")],
  ["kernel or reason", (row) => row.said],
];

class SiteList {
  constructor(select) {
    this.select = select;
    this.by = -1;
    this.down = false;
    this.rows = DATA.sites.filter((site) => site.kind === "operator" && site.standing !== "other").map((site, order) => ({
      order, site, name: site.site, standing: standingOf(site),
      op: site.op.replace(/^aten\./, "").replace(/\.\w+$/, ""),
      own: NUMBERS.has(site.site) ? sqnrOf(site, "own") : null,
      accumulated: NUMBERS.has(site.site) ? sqnrOf(site, "accumulated") : null,
      macs: (DATA.work[site.site] || [null])[0],
      said: site.reason || (site.match && site.match.anchor !== site.site ? `with ${site.match.anchor}` : site.kernel && site.kernel.eager) || "",
    }));
    this.shown = DATA.comparison ? COLUMNS : COLUMNS.filter(([name]) => !name.endsWith("SQNR"));
  }

  sort(index) {
    this.down = this.by === index ? !this.down : this.shown[index][0] === "MACs";
    this.by = index;
    this.draw();
    this.root.querySelectorAll("th button")[index].focus();
  }

  draw(root = this.root) {
    this.root = root;
    const rows = [...this.rows];
    if (this.by >= 0) {
      const value = this.shown[this.by][1];
      rows.sort((a, b) => {
        const x = value(a), y = value(b);
        // What has no number stands last, whichever way.
        if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order;
        return (x < y ? -1 : x > y ? 1 : 0) * (this.down ? -1 : 1) || a.order - b.order;
      });
    }
    const heads = this.shown.map(([name], index) => make("th", { scope: "col", "aria-sort": this.by === index ? (this.down ? "descending" : "ascending") : "none" },
      make("button", { type: "button", onclick: () => this.sort(index) }, name, this.by === index ? (this.down ? " ↓" : " ↑") : "")));
    root.replaceChildren(make("div", { class: "scroll tall" }, make("table", { class: "sites" }, make("thead", {}, make("tr", {}, heads)),
      make("tbody", {}, rows.map((row) => make("tr", { "data-name": row.name, onclick: (event) => { if (!event.target.closest("button")) this.select(row.name); } },
        this.shown.map(([, value, show]) => make("td", {}, show ? show(row, this.select) : value(row)))))))));
  }
}
