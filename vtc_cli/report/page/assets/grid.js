// The large panel with its grid of patches: pointer, touch and keyboard.

/** The panel of one frame; `choose(patch, how)` is told what the reader does. */
class PatchGrid {
  constructor(host, frame, choose) {
    this.frame = frame;
    this.choose = choose;
    this.cells = new Map();
    this.back = svg("g", { "aria-hidden": "true" });
    this.marks = svg("g", { id: "marks", "aria-hidden": "true" });
    this.lines = svg("g", { "aria-hidden": "true" });
    this.partners = svg("g", { "aria-hidden": "true" });
    const parts = [this.back, this.lattice(), this.marks, this.lines, this.partners, this.gridCells()];
    this.panel = svg("svg", { class: "panel", viewBox: VIEW.join(" ") }, ...parts);
    // Listeners stand on a wrapper: an svg that listens to focus would be a tab stop itself.
    this.element = html("div", {}, this.panel);
    this.listen();
    host.replaceChildren(this.element);
    this.drawMarks();
    this.makeCurrent(this.first());
  }

  /** The patch in the middle, where reading by keyboard begins. */
  first() {
    const middle = Math.floor(grid.rows / 2) * grid.columns + Math.floor(grid.columns / 2);
    return this.frame * PATCHES_A_FRAME + middle;
  }

  lattice() {
    const all = patchesOf(this.frame).map((patch) => boxPath(boxes[patch])).join("");
    return svg("path", { class: "lattice", d: all, "aria-hidden": "true" });
  }

  gridCells() {
    const rows = Array.from({ length: grid.rows }, () => svg("g", { role: "row" }));
    for (const patch of patchesOf(this.frame)) {
      const cell = this.cell(patch);
      rows[rowOf(patch)].append(cell);
      this.cells.set(patch, cell);
    }
    const label = `${grid.rows} rows of ${grid.columns} patches`;
    const attributes = { role: "grid", "aria-label": label, "aria-describedby": "grid-help" };
    return svg("g", attributes, ...rows);
  }

  cell(patch) {
    const [x, y, right, bottom] = boxes[patch];
    const size = { x, y, width: round(right - x), height: round(bottom - y) };
    const label = `patch ${patch}, row ${rowOf(patch)}, column ${columnOf(patch)}`;
    const speech = { role: "gridcell", "aria-label": label, "aria-selected": "false", tabindex: -1 };
    return svg("rect", { class: "patch", "data-patch": patch, ...size, ...speech });
  }

  drawMarks() {
    for (const patch of patchesOf(this.frame)) {
      const step = droppedAt[patch];
      if (step === Infinity) continue;
      const mark = markPath(step - 1, boxes[patch]);
      const shape = { d: mark, fill: colourOf(step - 1), class: "mark", "data-step": step };
      this.marks.append(svg("path", { ...shape, "data-dropped": patch }));
    }
  }

  listen() {
    const patchAt = (event) => {
      const found = event.target.dataset?.patch;
      return found === undefined ? null : Number(found);
    };
    this.element.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch") this.choose(patchAt(event), "hover");
    });
    this.element.addEventListener("pointerleave", () => this.choose(null, "hover"));
    this.element.addEventListener("click", (event) => {
      const patch = patchAt(event);
      if (patch !== null) this.choose(patch, "click");
    });
    this.element.addEventListener("focusin", (event) => {
      const patch = patchAt(event);
      if (patch !== null && event.target.matches(":focus-visible")) this.choose(patch, "focus");
    });
    this.element.addEventListener("keydown", (event) => this.press(event, patchAt(event)));
  }

  press(event, patch) {
    if (patch === null || event.altKey || event.metaKey) return;
    const next = this.target(event, patch);
    if (next !== undefined) this.focus(next);
    else if (event.key === "Escape") this.choose(patch, "escape");
    else if (event.key === "Enter" || event.key === " ") this.choose(patch, "focus");
    else return;
    event.preventDefault();
  }

  /** Where a key leads from `patch`; undefined if it leads nowhere. */
  target(event, patch) {
    const [row, column] = [rowOf(patch), columnOf(patch)];
    const at = (r, c) => this.frame * PATCHES_A_FRAME + r * grid.columns + c;
    const [lastRow, lastColumn] = [grid.rows - 1, grid.columns - 1];
    const ways = {
      ArrowLeft: () => at(row, Math.max(column - 1, 0)),
      ArrowRight: () => at(row, Math.min(column + 1, lastColumn)),
      ArrowUp: () => at(Math.max(row - 1, 0), column),
      ArrowDown: () => at(Math.min(row + 1, lastRow), column),
      Home: () => (event.ctrlKey ? at(0, 0) : at(row, 0)),
      End: () => (event.ctrlKey ? at(lastRow, lastColumn) : at(row, lastColumn)),
    };
    return ways[event.key]?.();
  }

  focus(patch) {
    this.makeCurrent(patch);
    this.cells.get(patch).focus();
  }

  /** One cell is the grid's tab stop. */
  makeCurrent(patch) {
    if (this.current !== undefined) this.cells.get(this.current).setAttribute("tabindex", -1);
    this.current = patch;
    this.cells.get(patch).setAttribute("tabindex", 0);
  }

  showStep(step) {
    this.back.replaceChildren(...ground(this.frame, step));
    this.lines.replaceChildren(...outlines(step));
    for (const mark of this.marks.children) {
      mark.toggleAttribute("hidden", Number(mark.dataset.step) > step);
    }
  }

  /** Ring the shown patch and its partners after `step`; a pinned patch is the selected one. */
  showPatch(patch, pinned, step) {
    this.panel.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    this.cells.get(pinned)?.setAttribute("aria-selected", "true");
    this.partners.replaceChildren(...this.rings(patch, step));
  }

  rings(patch, step) {
    // Of a token that was dropped, the partners that went with it.
    const known = isGone(patch, step) ? droppedAt[patch] - 1 : step;
    const group = companions(patch, known);
    const around = group.length > 1 ? outline(group, this.frame) : "";
    const anchor = group.length > 1 ? tokenOf(patch, known) : null;
    const rings = ["dark", "bright"].map((tone) => svg("path", { class: `partners ${tone}`, d: around }));
    if (anchor !== null && anchor !== patch && frameOf(anchor) === this.frame) {
      rings.push(...this.link(patch, anchor));
    }
    const own = boxPath(boxes[patch]);
    return [...rings, ...["dark", "bright"].map((tone) => svg("path", { class: `ring ${tone}`, d: own }))];
  }

  /** A line to the place that the token takes. */
  link(patch, anchor) {
    const middle = ([left, top, right, bottom]) => `${round((left + right) / 2)} ${round((top + bottom) / 2)}`;
    const d = `M${middle(boxes[patch])}L${middle(boxes[anchor])}`;
    return ["dark", "bright"].map((tone) => svg("path", { class: `link ${tone}`, d }));
  }
}
