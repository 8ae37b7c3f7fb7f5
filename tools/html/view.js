// The page: tabs, search, keyboard, and what is selected.

const page = Object.fromEntries(["title", "tabs", "search", "hits", "theme", "overview", "graph", "stages", "list", "details"].map((id) => [id, document.getElementById(id)]));
const state = { tab: "", stage: DATA.first, colour: "standing", selected: "", open: firstOpen(KEPT.find((each) => each.name === DATA.first)) };
const actions = { state, select, toggle };
const views = { graph: null, stages: [] };
const TABS = { overview: "Overview", graph: "Graph", stages: "Stages", list: "List" };
const MOST = 400; // more are neither laid out quickly nor read
const sites = new SiteList((name) => show(name));

function shownViews() {
  return state.tab === "graph" ? [views.graph] : state.tab === "stages" ? views.stages : [];
}

function toggle(path) {
  if (!state.open.delete(path)) state.open.add(path);
  for (const view of shownViews()) view.draw();
}

function select(name, node = null) {
  state.selected = name;
  const box = KEPT.map((stage) => stage.byPath.get(name)).find(Boolean);
  const content = SITES.has(name) ? explanationOf(name, show) : box ? moduleDetails(box, show) : node ? nodeDetails(node) : null;
  page.details.hidden = !content;
  if (content) {
    const close = make("button", { type: "button", class: "close", title: "Close (Esc)", "aria-label": "Close", onclick: deselect }, "×");
    const find = SITES.has(name) && state.tab !== "graph" ? make("button", { type: "button", onclick: () => reveal(name) }, "Show in the graph") : null;
    page.details.replaceChildren(close, ...content.flat().filter(Boolean), find || "");
    page.details.scrollTop = 0;
  }
  for (const view of shownViews()) view.mark();
}

function deselect() {
  state.selected = "";
  page.details.hidden = true;
  for (const view of shownViews()) view.mark();
}

/** Explain a name, and show it in the drawings that are seen. */
function show(name) {
  select(name);
  if (state.tab === "graph" || state.tab === "stages") reveal(name);
}

/** Open what is around a name, in the graph, and bring it to the middle. */
function reveal(name) {
  if (state.tab !== "graph" && state.tab !== "stages") openTab("graph");
  const has = (stage) => stage.byPath.has(name) || nodeOf(stage, name);
  if (state.tab === "graph" && !has(views.graph.stage)) {
    const other = KEPT.find(has);
    if (other) chooseStage(other.name);
  }
  for (const view of shownViews()) {
    const node = nodeOf(view.stage, name);
    const box = view.stage.byPath.get(name);
    const around = node ? node.boxes : box ? (box.nodes[0] ? box.nodes[0].boxes.slice(0, box.nodes[0].boxes.indexOf(box.id)) : []) : [];
    for (const each of around) state.open.add(view.stage.boxes[each].path);
  }
  for (const view of shownViews()) {
    view.draw();
    const item = view.find(name);
    if (item) { view.centre(item); if (state.tab === "graph" && item.mark) view.focus(item); }
  }
  select(name, shownViews().map((view) => nodeOf(view.stage, name)).find(Boolean));
}

// ---- tabs

function openTab(name) {
  state.tab = name;
  for (const id of Object.keys(TABS)) {
    page[id].hidden = id !== name;
    const tab = page.tabs.querySelector(`[data-tab=${id}]`);
    tab.setAttribute("aria-selected", String(id === name));
    tab.tabIndex = id === name ? 0 : -1;
  }
  if (name === "graph") openGraph();
  if (name === "stages") openStages();
  if (name === "list" && !sites.root) sites.draw(page.list);
  if (state.selected) select(state.selected);
}

function openGraph() {
  if (!views.graph) {
    page.graph.append(toolbar(), make("div", { class: "pane" }), legend());
    chooseStage(state.stage);
  } else views.graph.draw();
}

function chooseStage(name) {
  state.stage = name;
  views.graph = new GraphView(KEPT.find((stage) => stage.name === name), actions);
  page.graph.querySelector(".pane").replaceChildren(views.graph.svg);
  page.graph.querySelector("#stage").value = name;
  views.graph.draw();
  views.graph.fit();
}

function openStages() {
  if (!views.stages.length) {
    views.stages = KEPT.map((stage) => new GraphView(stage, actions));
    const panes = STAGES.map((stage) => {
      const view = views.stages.find((each) => each.stage === stage);
      const body = view ? view.svg : make("p", { class: "note missing" }, stage.why);
      return make("article", { class: "stage" }, make("h2", {}, stage.name), make("p", {}, stage.about), body);
    });
    page.stages.append(make("div", { class: "columns" }, panes), legend());
  }
  for (const view of views.stages) { view.draw(); view.fit(); }
}

function toolbar() {
  const button = (text, title, onclick) => make("button", { type: "button", title, onclick }, text);
  const choices = KEPT.map((stage) => make("option", { value: stage.name }, stage.name));
  const stage = make("select", { id: "stage", "aria-label": "Stage", onchange: (event) => chooseStage(event.target.value) }, choices);
  const colours = [["standing", "what is int8"], ...(DATA.comparison ? [["own", "own SQNR"], ["accumulated", "accumulated SQNR"]] : [])];
  const colour = make("select", { id: "colour", "aria-label": "Colour by", onchange: (event) => { state.colour = event.target.value; views.graph.draw(); for (const each of document.querySelectorAll(".legend")) each.replaceWith(legend()); } },
    colours.map(([value, text]) => make("option", { value }, text)));
  return make("div", { class: "toolbar" },
    make("label", {}, "Stage ", stage), make("label", {}, "Colour: ", colour),
    button("Open all", `Open modules, as far as ${MOST} operators are seen`, () => setOpen(true)), button("Close all", "Close every module", () => setOpen(false)),
    button("Fit", "Fit (0)", () => views.graph.fit()), button("+", "Zoom in", () => views.graph.zoom(1.25)), button("−", "Zoom out", () => views.graph.zoom(0.8)));
}

function setOpen(all) {
  state.open = all ? firstOpen(views.graph.stage, MOST) : new Set();
  views.graph.draw();
  views.graph.fit();
}

function legend() {
  const words = state.colour === "standing"
    ? [...Object.entries(STANDINGS).filter(([key]) => KEPT.some((stage) => stage.nodes.some((node) => node.standing === key))).map(([key, each]) => make("span", { title: each.about }, make("i", { class: `swatch ${key}` }), each.word)),
      KEPT.some((stage) => stage.boxes.some((box) => mainStanding(box.counts) === "mixed")) ? make("span", {}, make("i", { class: "swatch mixed" }), "a module of both") : null,
      make("span", {}, make("i", { class: "line int8" }), "int8 values"), make("span", {}, make("i", { class: "line inside" }), "inside one kernel"),
      KEPT.some((stage) => stage.edges.some((edge) => edge.kind === "observed")) ? make("span", {}, make("i", { class: "line observed" }), "observed values") : null, make("span", {}, make("i", { class: "line float" }), "float values")]
    : ["< 16 dB (over 16 % error)", "16–22", "22–28", "28–34", "> 34 dB (under 2 %)"].map((text, index) => make("span", {}, make("i", { class: `swatch heat-${index}` }), text)).concat(make("span", {}, make("i", { class: "swatch heat-none" }), "not measured"));
  return make("footer", { class: "legend" }, words, make("span", { class: "hint" }, "click + to open a module · click a node for its explanation · / search · arrows, Enter, Esc"));
}

// ---- search

const INDEX = [
  // The modules of the first stage come before those that only another one has.
  ...[...KEPT].sort((a, b) => (b.name === DATA.first) - (a.name === DATA.first)).flatMap((stage) => stage.boxes.map((box) => ({ name: box.path, kind: "module", head: `${box.path}  ${box.kind}`, text: `${box.path} ${box.kind}`.toLowerCase() }))),
  ...DATA.sites.map((site) => ({ name: site.site, kind: site.kind, head: `${site.module || site.site}  ${(site.op || "").replace(/^aten\./, "").replace(/\.\w+$/, "")}`, site,
    text: [site.site, site.module, site.op, site.module_class].filter(Boolean).join(" ").toLowerCase(), more: [site.reason, site.verdict, ...((site.match && [site.match.template]) || []), ...((site.kernel && [site.kernel.reason]) || [])].filter(Boolean).join(" ").toLowerCase() })),
  ...(DATA.sites.length ? [] : KEPT.flatMap((stage) => stage.nodes.map((node) => ({ name: node.name, kind: "node", head: `${node.name}  ${node.title}`, text: `${node.name} ${node.title}`.toLowerCase() })))),
].filter((each, index, all) => each.kind !== "module" || all.findIndex((other) => other.kind === "module" && other.name === each.name) === index);
let picked = 0;

function findHits(asked) {
  const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const scored = INDEX.map((each, order) => {
    const exact = each.name.toLowerCase() === words[0] || (each.site && (each.site.module || "").toLowerCase() === words[0]);
    const gone = each.kind === "vanished" || each.kind === "silent";
    if (words.every((word) => each.text.includes(word))) return { each, order, rank: (exact ? 0 : 2) + (gone ? 1 : 0) };
    return { each, order, rank: each.more && words.every((word) => `${each.text} ${each.more}`.includes(word)) ? 4 : 9 };
  });
  return scored.filter((each) => each.rank < 9).sort((a, b) => a.rank - b.rank || a.order - b.order).map((each) => each.each);
}

function search() {
  const hits = findHits(page.search.value);
  picked = 0;
  page.hits.hidden = !page.search.value.trim();
  page.search.setAttribute("aria-expanded", String(!page.hits.hidden));
  const rows = hits.slice(0, 40).map((hit, index) => make("li", { role: "option", id: `hit-${index}`, "aria-selected": String(index === 0), onpointerdown: (event) => { event.preventDefault(); pick(hit); } },
    hit.site && hit.site.standing !== "gone" ? badge(standingOf(hit.site)) : make("span", { class: "badge none" }, hit.kind === "module" ? "module" : hit.kind === "vanished" || hit.kind === "silent" ? "gone" : "node"),
    ` ${hit.head} `, make("small", {}, hit.site ? hit.site.reason || hit.site.site : "")));
  page.hits.hitList = hits;
  page.hits.replaceChildren(...rows, hits.length > 40 ? make("li", { class: "more" }, `and ${hits.length - 40} more`) : hits.length ? "" : make("li", { class: "more" }, "nothing of that name, operator or reason"));
}

function pick(hit) {
  page.hits.hidden = true;
  page.search.setAttribute("aria-expanded", "false");
  page.search.blur();
  reveal(hit.name);
}

function moveHit(step) {
  const rows = [...page.hits.querySelectorAll("[role=option]")];
  if (!rows.length) return;
  picked = (picked + step + rows.length) % rows.length;
  rows.forEach((row, index) => row.setAttribute("aria-selected", String(index === picked)));
  page.search.setAttribute("aria-activedescendant", rows[picked].id);
  rows[picked].scrollIntoView({ block: "nearest" });
}

page.search.addEventListener("input", search);
page.search.addEventListener("focus", () => { if (page.search.value) search(); });
page.search.addEventListener("blur", () => { page.hits.hidden = true; });
page.search.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); moveHit(event.key === "ArrowDown" ? 1 : -1); }
  else if (event.key === "Enter" && page.hits.hitList && page.hits.hitList[picked]) { event.preventDefault(); pick(page.hits.hitList[picked]); }
  else if (event.key === "Escape") { event.stopPropagation(); page.search.value = ""; page.hits.hidden = true; page.search.blur(); }
});

// ---- theme, keyboard, start

function applyTheme(name) {
  document.documentElement.dataset.theme = name;
  page.theme.textContent = name === "dark" ? "Light" : "Dark";
}

page.theme.addEventListener("click", () => applyTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing) { event.preventDefault(); page.search.focus(); page.search.select(); }
  else if (event.key === "Escape" && !page.details.hidden) { deselect(); if (state.tab === "graph") views.graph.svg.focus({ preventScroll: true }); }
});
page.tabs.addEventListener("keydown", (event) => {
  const names = Object.keys(TABS);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = names[(names.indexOf(state.tab) + step + names.length) % names.length];
  openTab(next);
  page.tabs.querySelector(`[data-tab=${next}]`).focus();
});

function start() {
  page.title.textContent = DATA.title;
  page.tabs.append(...Object.entries(TABS).map(([id, text]) => make("button", { type: "button", role: "tab", "data-tab": id, onclick: () => openTab(id) }, text)));
  applyTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  page.overview.append(make("div", { class: "text" }, ...overview((name) => reveal(name)).flat(2).filter(Boolean),
    make("details", {}, make("summary", {}, "Licence of the graph layout (dagre)"), make("pre", {}, document.getElementById("licence").content.textContent))));
  openTab(DATA.report ? "overview" : "graph");
}

start();
