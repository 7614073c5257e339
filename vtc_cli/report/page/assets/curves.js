// Figures of every decoder layer as small charts that share one axis.

const RANKS = [
  ["effective_rank", "effective rank", "exp of the entropy of the singular values"],
  ["rank", "numerical rank", `singular values above ${page.curves.tau} × the largest`],
  ["stable_rank", "stable rank", "energy over that of the largest direction"],
  ["energy_rank", "energy rank", "directions that hold 99 % of the energy"],
];
const MARGIN = { left: 44, right: 78, top: 15, bottom: 22 };
const HEIGHT = 132;
const NARROWEST = 240;

/** About four round values from 0 to at least `highest`. */
function ticks(highest) {
  const rough = (highest || 1) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough) * power;
  const count = Math.ceil((highest || 1) / unit - 1e-9);
  return Array.from({ length: count + 1 }, (_, at) => Number((at * unit).toPrecision(6)));
}

/** One chart: a heading with the values at the chosen layer, and the lines. */
class Chart {
  constructor({ name, title, about, select }, chooseLayer) {
    Object.assign(this, { name, chooseLayer, bands: [], layer: null });
    this.title = title;
    this.readout = html("p", { class: "readout" });
    this.about = html("p", { class: "about" }, about);
    const heading = html("div", { class: "chart-head" }, select ?? html("h3", {}, title), this.about);
    this.drawn = svg("svg", { class: "chart", tabindex: 0, role: "slider", "aria-valuemin": 0 });
    this.element = html("figure", {}, heading, this.readout, this.drawn);
    this.listen();
  }

  lines() {
    const { run, full } = page.curves;
    const both = [["run", full ? "this run" : "", run], ["full", "full model", full]];
    return both.flatMap(([kind, label, series]) =>
      series?.[this.name] ? [{ kind, label, values: series[this.name] }] : []);
  }

  show(name, title, about) {
    Object.assign(this, { name, title });
    this.about.textContent = about;
    this.draw();
  }

  draw() {
    const width = Math.max(this.element.clientWidth, NARROWEST);
    const right = this.lines().length > 1 ? MARGIN.right : 12;
    const highest = Math.max(...this.lines().flatMap(({ values }) => values));
    const marks = ticks(highest);
    const step = (width - MARGIN.left - right) / decoder.layers;
    this.x = (layer) => round(MARGIN.left + (layer + 0.5) * step);
    this.y = (value) => round(HEIGHT - MARGIN.bottom - (value / marks.at(-1)) * (HEIGHT - MARGIN.bottom - MARGIN.top));
    this.step = step;
    this.right = width - right;
    this.shade = svg("g", { class: "shade" });
    this.cursor = svg("g", { class: "cursor" });
    this.drawn.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.drawn.setAttribute("aria-valuemax", decoder.layers - 1);
    this.drawn.setAttribute("aria-label", `${this.title} by decoder layer`);
    this.drawn.replaceChildren(this.shade, ...this.axes(marks), ...this.stages(), ...this.paths(), this.cursor);
    this.showPatch(this.bands);
    this.showLayer(this.layer);
  }

  axes(marks) {
    const level = (value) => [
      svg("line", { x1: MARGIN.left, x2: this.right, y1: this.y(value), y2: this.y(value), class: value ? "rule" : "base" }),
      svg("text", { x: MARGIN.left - 8, y: this.y(value) + 4, class: "tick end" }, String(value)),
    ];
    const every = Math.max(1, Math.ceil(decoder.layers / 8));
    const shown = Array.from({ length: decoder.layers }, (_, layer) => layer).filter((layer) => layer % every === 0);
    const foot = HEIGHT - MARGIN.bottom + 15;
    const layers = shown.map((layer) => svg("text", { x: this.x(layer), y: foot, class: "tick middle" }, String(layer)));
    return [...marks.flatMap(level), ...layers, svg("text", { x: 2, y: foot, class: "tick" }, "layer")];
  }

  /** A fine line at every layer at whose input a stage acted. */
  stages() {
    return steps.flatMap(({ phase, layer }, step) => {
      if (phase !== "prefill") return [];
      const x = round(this.x(layer) - this.step / 2);
      const line = svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "stage" });
      const mark = glyph(step - 1);
      for (const [key, value] of Object.entries({ x: x - 5, y: 0, width: 10, height: 10 })) mark.setAttribute(key, value);
      return [line, mark];
    });
  }

  paths() {
    const lines = this.lines();
    const drawn = lines.map(({ kind, values }) => {
      const points = values.map((value, layer) => (value === null ? null : `${this.x(layer)} ${this.y(value)}`));
      const d = points.map((point, at) => (point ? `${at && points[at - 1] ? "L" : "M"}${point}` : "")).join("");
      return svg("path", { class: `line ${kind}`, d });
    });
    return [...drawn.reverse(), ...this.labels(lines)];
  }

  /** Names at the ends of the lines, pushed apart where they would meet. */
  labels(lines) {
    if (lines.length < 2) return [];
    const ends = lines.map(({ kind, label, values }) => ({ kind, label, y: this.y(values.findLast((value) => value !== null)) + 4 }));
    ends.sort((a, b) => a.y - b.y);
    const gap = 15 - (ends[1].y - ends[0].y);
    if (gap > 0) {
      ends[0].y = Math.max(ends[0].y - gap / 2, 12);
      ends[1].y = ends[0].y + 15;
    }
    return ends.map(({ kind, label, y }) => svg("text", { x: this.right + 4, y, class: `name ${kind}` }, label));
  }

  listen() {
    const at = (event) => {
      const { left, width } = this.drawn.getBoundingClientRect();
      const x = ((event.clientX - left) / width) * this.drawn.viewBox.baseVal.width;
      return Math.min(Math.max(Math.floor((x - MARGIN.left) / this.step), 0), decoder.layers - 1);
    };
    this.drawn.addEventListener("pointermove", (event) => this.chooseLayer(at(event)));
    this.drawn.addEventListener("pointerdown", (event) => this.chooseLayer(at(event)));
    this.drawn.addEventListener("focus", () => this.chooseLayer(this.layer ?? 0));
    this.drawn.addEventListener("keydown", (event) => {
      const [now, last] = [this.layer ?? 0, decoder.layers - 1];
      const next = {
        ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, Home: 0, End: last,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      this.chooseLayer(Math.min(Math.max(next, 0), last));
    });
  }

  /** Shade the layers that see the patch; `states` is empty without one. */
  showPatch(states) {
    this.bands = states;
    const bands = states.flatMap((state, layer) => {
      if (state === "gone") return [];
      const box = { x: round(this.x(layer) - this.step / 2), y: MARGIN.top, width: round(this.step), height: HEIGHT - MARGIN.top - MARGIN.bottom };
      return [svg("rect", { ...box, class: state, "data-layer": layer })];
    });
    this.shade.replaceChildren(...bands);
  }

  showLayer(layer) {
    this.layer = layer;
    const values = layer === null ? [] : this.lines().map((line) => ({ ...line, value: line.values[layer] }));
    const known = values.filter(({ value }) => value !== null);
    const words = known.map(({ kind, value }) => (kind === "full" ? `full model ${figure(value)}` : figure(value)));
    this.readout.textContent = layer === null ? "" : `layer ${layer}: ${words.join(" · ") || "none"}`;
    this.drawn.setAttribute("aria-valuenow", layer ?? 0);
    this.drawn.setAttribute("aria-valuetext", this.readout.textContent || "no layer chosen");
    const line = layer === null ? [] : [svg("line", { x1: this.x(layer), x2: this.x(layer), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom })];
    const dots = known.map(({ kind, value }) => svg("circle", { cx: this.x(layer), cy: this.y(value), r: 3.5, class: kind }));
    this.cursor.replaceChildren(...line, ...dots);
  }
}

/** The choice among the ranks that were measured. */
function rankChoice(measured, changed) {
  const options = measured.map(([name, title]) => html("option", { value: name }, title));
  const select = html("select", { "aria-label": "which rank" }, ...options);
  select.addEventListener("change", () => changed(RANKS.find(([name]) => name === select.value)));
  return select;
}

/** The charts of what was measured, and a word on what was not. */
function buildCharts(host, chooseLayer) {
  const { run } = page.curves;
  const charts = [];
  const add = (options) => charts.push(new Chart(options, chooseLayer));
  if (run.tokens) add({ name: "tokens", title: "visual tokens", about: "that each decoder layer processed" });
  const measured = RANKS.filter(([name]) => run[name]);
  if (measured.length) {
    const [name, title, about] = measured[0];
    const at = charts.length;
    add({ name, title, about, select: rankChoice(measured, (chosen) => charts[at].show(...chosen)) });
  }
  if (run.attention_mass) {
    add({ name: "attention_mass", title: "attention on visual tokens", about: "share that the text behind the picture gives them" });
  }
  host.replaceChildren(...charts.map((chart) => chart.element), ...missing(run));
  for (const chart of charts) chart.draw();
  return charts;
}

function missing(run) {
  const lacks = [];
  if (!run.tokens) lacks.push("visual tokens");
  if (!RANKS.some(([name]) => run[name])) lacks.push("ranks");
  if (!run.attention_mass) lacks.push("attention");
  if (!lacks.length) return [];
  return [html("p", { class: "note" }, `Not measured in this run: ${lacks.join(", ")} of the layers.`)];
}
