// The explanation of one operator, or of one module.

function badge(standing) {
  return make("span", { class: `badge ${standing}` }, STANDINGS[standing].word);
}

function section(title, ...children) {
  const inner = children.flat().filter(Boolean);
  return inner.length ? make("section", {}, make("h3", {}, title), ...inner) : null;
}

function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  if (!rows.length) return null;
  return make("dl", {}, rows.map(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
}

function link(name, select, text) {
  if (!SITES.has(name)) return document.createTextNode(text || name);
  return make("button", { type: "button", class: "link", onclick: () => select(name) }, text || name);
}

function listOf(names, select) {
  return names.flatMap((name, index) => [index ? ", " : "", link(name, select)]);
}

function number(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);
}

function showTensor(tensor, select) {
  const q = tensor.qparams;
  const scale = q && q.scale !== null ? (q.channels > 1 ? `${number(q.scale_min)} to ${number(q.scale_max)} (${q.channels} channels)` : number(q.scale)) : q ? "found in each call" : "";
  return make("div", { class: "tensor" },
    make("h4", {}, tensor.slot || "result", " ", make("small", {}, "of ", link(tensor.reads, select))),
    facts([
      ["type", q ? `${q.dtype}, ${q.scheme}` : "float"],
      ["scale", scale],
      ["zero point", q && q.zero_point !== null ? String(q.zero_point) : ""],
      ["range", q && q.low !== null ? `${number(q.low)} to ${number(q.high)}` : ""],
      ["observer", tensor.observer],
      ["asked by", tensor.asked_by || `backend's default (${tensor.spec_name || tensor.spec})`],
      ["note", tensor.reason],
    ]));
}

function showNumbers(row) {
  if (!row) return null;
  const cosine = row.own ? row.own.cosine : null;
  return section("Accuracy here",
    facts([
      ["own SQNR", row.own ? `${showDecibels(decibels(row.own))} with exact inputs (more is better)` : "not measured"],
      ["accumulated", row.accumulated ? `${showDecibels(decibels(row.accumulated))} after all that came before` : ""],
      ["cosine", cosine === null ? "" : number(cosine)],
      ...row.inputs.map((each) => [each.tensor, `${share(each.clipped, 1)} clipped, ${share(each.used, 1)} of the range used`]),
      ...row.weights.map((each) => [each.tensor, `${number(each.sqnr)} dB; worst channel ${number(each.worst_channel)} dB`]),
    ]),
    row.diagnoses.map((each) => make("p", { class: "remedy" }, make("b", {}, `${each.name}: `), `${each.tensor}: ${each.message}. `, make("em", {}, each.remedy))));
}

function showSharing(group, select) {
  return make("div", {},
    make("p", {}, `${group.slot || "result"} shares scale and zero point with `, make("b", {}, `${group.members.length - 1} others`), `: ${group.members.join(", ")}`),
    group.chain.length ? make("ol", {}, group.chain.map((each) => make("li", {}, `${each.a} – ${each.b}: ${each.why}`))) : null);
}

function explanationOf(name, select) {
  const site = SITES.get(name);
  const standing = standingOf(site);
  const kernel = site.kernel || {};
  const work = DATA.work[site.match ? site.match.anchor : name] || [null, 0];
  const anchor = site.match ? site.match.anchor : name;
  return [
    make("h2", {}, site.op ? site.op.replace(/^aten\./, "").replace(/\.\w+$/, "") : site.site, " ", site.standing === "gone" ? make("span", { class: "badge none" }, "gone") : badge(standing)),
    make("p", { class: "path" }, site.module ? `${site.module} (${site.module_class})` : "top level", " · ", make("code", {}, site.site)),
    make("p", { class: "verdict" }, site.verdict),
    site.code ? make("p", {}, make("code", {}, site.code.text || ""), make("br"), make("small", {}, `${site.code.file}:${site.code.line}`)) : null,
    site.reason ? section(standing === "float" ? "Why it stays float" : "Why", make("p", {}, site.reason)) : null,
    site.remedies ? section("What would make it int8", site.remedies.map((text) => make("p", { class: "remedy" }, text))) : null,
    showNumbers(NUMBERS.get(anchor)),
    site.kernel ? section("What computes it", facts([
      ["result.module", kernel.eager],
      ["compiled", kernel.compiled],
      ["prepared plan", kernel.region],
      ["together with", kernel.with_others && kernel.with_others.length ? make("span", {}, listOf(kernel.with_others, select)) : ""],
      ["note", kernel.reason],
      ["multiply-accumulates", work[0] ? showCount(work[0]) : ""],
      ["weights, were they float", work[1] ? `${showCount(work[1])}B` : ""],
    ])) : null,
    site.match ? section("Match", facts([
      ["template", `${site.match.template} (${site.match.mode})`],
      ["operators", make("span", {}, listOf(site.match.members, select))],
      ["anchor", site.match.anchor === name ? "" : link(site.match.anchor, select)],
    ])) : null,
    site.tensors ? section("Quantized tensors", site.tensors.map((each) => showTensor(each, select))) : null,
    site.sharing ? section("Sharing", site.sharing.map((each) => showSharing(each, select))) : null,
    site.tries ? section("Templates tried", make("ol", { class: "tries" }, site.tries.map((each) => make("li", { class: each.matched ? "yes" : "no" }, make("code", {}, each.template), each.matched ? " matched" : `: ${each.reason}`)))) : null,
    site.decision ? section("Config", make("p", {}, `${site.decision.mode}, by ${site.decision.rule || "the default"}`)) : null,
    site.history ? section("History", make("ol", {}, site.history.map((step) => make("li", {}, make("code", {}, step.by), ` ${step.what} `, step.other ? link(step.other, select) : "", step.text ? make("small", {}, ` ${step.text}`) : "")))) : null,
  ];
}

function moduleDetails(box, select) {
  const told = box.nodes.filter((node) => node.site);
  return [
    make("h2", {}, box.path || "model", " ", make("small", {}, box.kind)),
    make("p", {}, Object.keys(STANDINGS).filter((key) => box.counts[key]).map((key) => [badge(key), ` ${box.counts[key]}  `])),
    section("Operators", make("ul", { class: "rows" }, told.map((node) => make("li", {}, badge(node.standing), " ", link(node.site.site, select, `${node.title}  ${(node.site.module || node.site.site).replace(`${box.path}.`, "")}`))))),
  ];
}

function nodeDetails(node) {
  return [
    make("h2", {}, node.title),
    make("p", { class: "path" }, make("code", {}, node.name)),
    node.details.map((line) => make("p", {}, line)),
    make("p", {}, "No explanation is kept for this node."),
  ];
}
