// SVG and HTML elements, and the shapes that the panels share with the PNG overlay.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes and children. */
function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** An HTML element; text children stay text. */
function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const round = (value) => Math.round(value * 100) / 100;

/** Path data of a box [left, top, right, bottom]. */
const boxPath = ([left, top, right, bottom]) => `M${left} ${top}H${right}V${bottom}H${left}Z`;

const polygon = (points) => `M${points.map(([x, y]) => `${round(x)} ${round(y)}`).join("L")}Z`;

/** Path data of each form around (x, y) with radius r, as report/marks.py draws them. */
const FORM_PATHS = {
  disc: (x, y, r) =>
    `M${round(x - r)} ${round(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  square: (x, y, r) => {
    const half = 0.85 * r;
    return boxPath([x - half, y - half, x + half, y + half].map(round));
  },
  triangle: (x, y, r) => polygon([[x, y - r], [x + r, y + r], [x - r, y + r]]),
  diamond: (x, y, r) => {
    const reach = 1.2 * r;
    return polygon([[x, y - reach], [x + reach, y], [x, y + reach], [x - reach, y]]);
  },
  cross: (x, y, r) => {
    const half = 0.25 * r; // of the width, along each axis
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
    // Both bars turn the same way round, or their crossing would be a hole.
    const falling = corners.map(([end, side]) => [x + end * r + side * half, y + end * r - side * half]);
    const rising = corners.map(([end, side]) => [x + end * r - side * half, y - end * r - side * half]);
    return polygon(falling) + polygon(rising);
  },
};
const MARK_SHARE = 0.2; // radius of a mark as a share of the patch

const formOf = (stage) => page.marks.forms[stage % page.marks.forms.length];
const colourOf = (stage) => page.marks.colours[stage % page.marks.colours.length];

/** Path data of the mark of stage number `stage` (from 0) in the middle of a box. */
function markPath(stage, [left, top, right, bottom]) {
  const radius = round(MARK_SHARE * Math.min(right - left, bottom - top));
  return FORM_PATHS[formOf(stage)]((left + right) / 2, (top + bottom) / 2, radius);
}

/** A small mark on a dark ground, for legends and lists. */
function glyph(stage) {
  const ground = svg("rect", { width: 16, height: 16, rx: 3, fill: "#3e3e40" });
  const mark = svg("path", { d: FORM_PATHS[formOf(stage)](8, 8, 4.4), fill: colourOf(stage) });
  return svg("svg", { class: "glyph", viewBox: "0 0 16 16", "aria-hidden": "true" }, ground, mark);
}

/** The same for merged patches: an outline. */
function outlineGlyph() {
  const ground = svg("rect", { width: 16, height: 16, rx: 3, class: "glyph-picture" });
  const lines = [["#141414", 4], ["#ffffff", 2]].map(([stroke, width]) =>
    svg("rect", { x: 3, y: 3, width: 10, height: 10, fill: "none", stroke, "stroke-width": width }));
  return svg("svg", { class: "glyph", viewBox: "0 0 16 16", "aria-hidden": "true" }, ground, ...lines);
}

/** The same for patches that lie outside the picture. */
function hatchGlyph() {
  const ground = svg("rect", { width: 16, height: 16, rx: 3, class: "padding" });
  return svg("svg", { class: "glyph", viewBox: "0 0 16 16", "aria-hidden": "true" }, ground);
}

/** A name that may break behind its underscores. */
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part]));
}
