// One drawing: pan, zoom, open and close modules, select, walk with the arrow keys.

class GraphView {
  constructor(stage, actions) {
    this.stage = stage;
    this.actions = actions;
    this.at = { x: 0, y: 0, scale: 1 };
    this.pointers = new Map();
    this.world = make("g");
    const arrow = make("marker", { id: `arrow-${GraphView.count += 1}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse", class: "arrow" }, make("path", { d: "M0 0L8 4L0 8z" }));
    this.arrow = `url(#${arrow.id})`;
    this.svg = make("svg", { class: "canvas", tabindex: 0, role: "group", "aria-label": `Graph: ${stage.name}` }, make("defs", {}, arrow), this.world);
    this.listen();
  }

  draw() {
    const { open, colour } = this.actions.state;
    this.view = layOut(this.stage, open, colour);
    const boxes = this.view.groups.map((group) => this.drawGroup(group));
    const edges = this.view.edges.map((edge) => this.drawEdge(edge));
    const nodes = [...this.view.items.values()].map((item) => this.drawItem(item, colour));
    this.world.replaceChildren(...boxes, ...edges, ...nodes);
    this.mark();
  }

  drawGroup(group) {
    const left = group.x - group.width / 2, top = group.y - group.height / 2;
    const toggle = (event) => { event.stopPropagation(); this.toggle(group.box.path); };
    group.mark = make("g", { class: "group", tabindex: -1, role: "button", "aria-expanded": "true", "aria-label": `Close ${group.box.path}` },
      make("rect", { x: left, y: top, width: group.width, height: group.height, rx: 8 }),
      make("text", { x: left + 8, y: top + 13, class: "group-name", onclick: toggle },
        `− ${cut(group.box.path || "model", Math.max(8, Math.floor(group.width / 7) - 4))}`));
    group.mark.item = group;
    return group.mark;
  }

  drawEdge(edge) {
    const points = edge.points;
    let path = `M${points[0].x} ${points[0].y}`;
    for (let i = 1; i < points.length - 1; i += 1) {
      const middle = { x: (points[i].x + points[i + 1].x) / 2, y: (points[i].y + points[i + 1].y) / 2 };
      const end = i === points.length - 2 ? points[i + 1] : middle;
      path += `Q${points[i].x} ${points[i].y} ${end.x} ${end.y}`;
    }
    if (points.length === 2) path += `L${points[1].x} ${points[1].y}`;
    const kind = ["mismatch", "int8", "dequantize", "observed", "float", "inside", "scalar", "nested"].find((each) => edge.kinds.has(each)) || "float";
    const labels = [...edge.labels].slice(0, 6).join("\n");
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    const told = { float: "float values", observed: "an observed tensor", inside: "inside one kernel", scalar: "a number", nested: "computes this graph", mismatch: "read with another scale than written" };
    title.textContent = [told[kind] || "int8 values", labels].filter(Boolean).join("\n");
    return make("path", { class: `edge ${kind === "dequantize" ? "int8" : kind}${edge.loose ? " loose" : ""}`, d: path, "marker-end": this.arrow }, title);
  }

  drawItem(item, colour) {
    const left = item.x - item.width / 2, top = item.y - item.height / 2;
    const standing = item.box ? mainStanding(item.box.counts) : item.node.standing;
    const value = colour === "standing" ? null : item.box ? worst(item.box.nodes, colour) : sqnrOf(item.node.site, colour);
    const look = colour === "standing" ? standing : heatClass(value);
    const label = item.box ? `Module ${item.box.path} ${item.box.kind}: ${item.words[1]}` : `${item.node.name}: ${item.words[1]}`;
    const mark = make("g", { class: `item ${item.box ? "module" : item.node.kind} ${look}${item.node && item.node.macs && standing === "float" ? " heavy" : ""}`, tabindex: -1, role: "button", "aria-label": label, "aria-expanded": item.box ? "false" : null, "data-name": item.box ? item.box.path : item.node.name },
      item.box ? make("rect", { class: "behind", x: left + 4, y: top + 4, width: item.width, height: item.height, rx: 7 }) : null,
      make("rect", { class: "face", x: left, y: top, width: item.width, height: item.height, rx: 7 }),
      make("text", { class: "name", x: left + 12, y: item.words[1] ? top + 18 : top + 19 }, item.words[0]),
      item.words[1] ? make("text", { class: "said", x: left + 12, y: top + 33 }, item.words[1]) : null,
      item.box ? make("text", { class: "plus", x: left + item.width - 22, y: top + 22 }, "+") : null,
      item.box && colour === "standing" ? this.drawBar(item, left, top) : null);
    mark.item = item;
    item.mark = mark;
    return mark;
  }

  /** How much of a closed module is int8: a bar at its foot. */
  drawBar(item, left, top) {
    const keys = ["int8", "loop", "missed", "float"].filter((key) => item.box.counts[key]);
    const total = keys.reduce((sum, key) => sum + item.box.counts[key], 0);
    let x = left + 8;
    return keys.map((key) => {
      const width = ((item.width - 16) * item.box.counts[key]) / total;
      x += width;
      return make("rect", { class: `bar ${key}`, x: x - width, y: top + item.height - 5, width, height: 3 });
    });
  }

  toggle(path) {
    const before = this.placeOf(path);
    this.actions.toggle(path);
    const after = this.placeOf(path);
    if (before && after) {
      this.at.x += (before.x - after.x) * this.at.scale;
      this.at.y += (before.y - after.y) * this.at.scale;
      this.move();
    }
    const item = this.itemOf(path);
    if (item) this.focus(item);
  }

  itemOf(path) {
    return [...this.view.items.values(), ...this.view.groups].find((item) => item.box && item.box.path === path);
  }

  placeOf(path) {
    const item = this.itemOf(path);
    return item && { x: item.x, y: item.y - item.height / 2 };
  }

  /** The visible item that holds what is called so: a node, a site or a module. */
  find(name) {
    const box = this.itemOf(name);
    if (box) return box;
    const node = nodeOf(this.stage, name);
    return node ? this.view.items.get(this.view.keys[node.id]) : undefined;
  }

  mark() {
    const { selected } = this.actions.state;
    const site = SITES.get(selected);
    const near = new Set(site && site.match ? site.match.members : []);
    for (const item of this.view.items.values()) {
      const sites = item.node ? item.node.sites : [];
      const chosen = selected && (item.node ? sites.includes(selected) || item.node.name === selected : item.box.path === selected);
      item.mark.classList.toggle("selected", Boolean(chosen));
      item.mark.classList.toggle("partner", !chosen && sites.some((each) => near.has(each)));
    }
  }

  size() {
    const { clientWidth, clientHeight } = this.svg;
    return { width: clientWidth || 800, height: clientHeight || 600 };
  }

  fit() {
    const { width, height } = this.size();
    const scale = Math.min(1.1, width / this.view.width, height / this.view.height);
    // A long network is read from its top: better to scroll than to shrink it to dust.
    this.at.scale = Math.max(scale, Math.min(0.75, width / this.view.width));
    this.at.x = (width - this.view.width * this.at.scale) / 2;
    this.at.y = this.view.height * this.at.scale < height ? (height - this.view.height * this.at.scale) / 2 : 8;
    this.move();
  }

  move() {
    const { x, y, scale } = this.at;
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
  }

  zoom(factor, x, y) {
    const scale = Math.min(3, Math.max(0.05, this.at.scale * factor));
    const size = this.size();
    const cx = x === undefined ? size.width / 2 : x, cy = y === undefined ? size.height / 2 : y;
    this.at.x = cx - ((cx - this.at.x) * scale) / this.at.scale;
    this.at.y = cy - ((cy - this.at.y) * scale) / this.at.scale;
    this.at.scale = scale;
    this.move();
  }

  centre(item) {
    const { width, height } = this.size();
    this.at.scale = Math.max(this.at.scale, 0.8);
    this.at.x = width / 2 - item.x * this.at.scale;
    this.at.y = height / 2 - item.y * this.at.scale;
    this.move();
  }

  focus(item) {
    if (item.mark) item.mark.focus({ preventScroll: true });
    const { width, height } = this.size();
    const x = item.x * this.at.scale + this.at.x, y = item.y * this.at.scale + this.at.y;
    if (x < 40 || x > width - 40 || y < 30 || y > height - 30) this.centre(item);
  }

  listen() {
    const svg = this.svg;
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = svg.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      this.moved = this.pointers.size > 1;
      this.pressed = { x: event.clientX, y: event.clientY };
    });
    svg.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) svg.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    svg.addEventListener("click", (event) => {
      const mark = event.target.closest("g.item");
      if (mark && !this.moved) this.choose(mark.item);
    });
    svg.addEventListener("keydown", (event) => this.key(event));
    // While a node has the focus, the drawing itself is no stop of the Tab key: Shift+Tab leaves.
    svg.addEventListener("focusin", (event) => { if (event.target !== svg) svg.setAttribute("tabindex", "-1"); });
    svg.addEventListener("focusout", () => svg.setAttribute("tabindex", "0"));
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) this.first(); });
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    if (others.length) {
      const box = this.svg.getBoundingClientRect();
      const distance = (at) => Math.hypot(at.x - others[0].x, at.y - others[0].y) || 1;
      const now = { x: event.clientX, y: event.clientY };
      this.zoom(distance(now) / distance(before), (now.x + others[0].x) / 2 - box.left, (now.y + others[0].y) / 2 - box.top);
    } else {
      if (Math.hypot(event.clientX - this.pressed.x, event.clientY - this.pressed.y) > 4) this.moved = true;
      this.at.x += event.clientX - before.x;
      this.at.y += event.clientY - before.y;
      this.move();
    }
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  choose(item) {
    if (item.node) this.actions.select(item.node.sites[0] || item.node.name, item.node);
    else { this.actions.select(item.box.path, null); this.toggle(item.box.path); }
    if (item.node) this.focus(item);
  }

  first() {
    const item = this.find(this.actions.state.selected) || this.view.items.values().next().value;
    if (item) this.focus(item);
  }

  key(event) {
    const mark = event.target.closest("g.item, g.group");
    const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (step) { event.preventDefault(); this.walk(mark && mark.item, step); }
    else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); if (mark) (mark.item.mark.matches(".group") ? this.toggle(mark.item.box.path) : this.choose(mark.item)); }
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.fit();
    else if (event.key === "Backspace" && mark && mark.item.around && mark.item.around.length) this.toggle(this.stage.boxes[mark.item.around[mark.item.around.length - 1]].path);
  }

  /** Move the focus to the nearest item in a direction. */
  walk(from, [dx, dy]) {
    if (!from) { this.first(); return; }
    let best = null, least = Infinity;
    for (const item of this.view.items.values()) {
      const along = (item.x - from.x) * dx + (item.y - from.y) * dy;
      const across = Math.abs((item.x - from.x) * dy + (item.y - from.y) * dx);
      const cost = along + 2 * across;
      if (item !== from && along > 4 && across <= Math.max(along * 3, 120) && cost < least) { best = item; least = cost; }
    }
    if (best) this.focus(best);
  }
}
GraphView.count = 0;

function mainStanding(counts) {
  const order = ["missed", "float", "loop", "int8"].filter((key) => counts[key]);
  if (!order.length) return "none";
  return order.length === 1 ? order[0] : "mixed";
}
