// Every item: what each recipe answered, and which patches it had for that.

const page = JSON.parse(document.getElementById("page-data").textContent);
const { arms, texts, pictures, items } = page;
const PAGE_ITEMS = 25;
const [TEXT, RIGHT, DISTANCE, FATES] = [0, 1, 2, 3];
const SHADES = ["shade-early", "shade-late", "shade-merged"]; // by fate; a kept patch has none
const element = (id) => document.getElementById(id);

function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The fate of every patch: two bits each, four a byte from the lowest bits on. */
function unpacked(mask, count) {
  const bytes = atob(mask);
  return Array.from({ length: count }, (_, at) => (bytes.charCodeAt(at >> 2) >> (2 * (at & 3))) & 3);
}

/** Patches of one fate in the first frame as one path, neighbours in a row joined. */
function fatePath(fates, wanted, [, rows, columns], [left, top, right, bottom]) {
  const [wide, high] = [(right - left) / columns, (bottom - top) / rows];
  let path = "";
  for (let row = 0; row < rows; row += 1) {
    for (let start = 0; start < columns; start += 1) {
      if (fates[row * columns + start] !== wanted) continue;
      let end = start;
      while (end < columns && fates[row * columns + end] === wanted) end += 1;
      const [x, y] = [left + start * wide, top + row * high];
      path += `M${x.toFixed(2)} ${y.toFixed(2)}h${((end - start) * wide).toFixed(2)}v${high.toFixed(2)}H${x.toFixed(2)}Z`;
      start = end;
    }
  }
  return path;
}

/** The picture with the patches that a pass lost laid over it; nothing without a picture. */
function overlay(item, mask) {
  if (item.picture === null) return [];
  const [width, height] = item.size;
  const image = svg("image", { href: pictures[item.picture], width, height, preserveAspectRatio: "none" });
  const parts = [image];
  if (mask !== null && item.grid !== null) {
    const fates = unpacked(mask, item.grid[0] * item.grid[1] * item.grid[2]);
    SHADES.forEach((shade, fate) => {
      const d = fatePath(fates, fate, item.grid, item.box);
      if (d !== "") parts.push(svg("path", { d, class: shade }));
    });
  }
  return [svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...parts)];
}

/** A name that may break behind its underscores. */
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part) => [part, html("wbr")]);
}

function tile(item, arm, pass) {
  const name = html("b", { class: arm.kind }, ...breakable(arm.name));
  if (pass === null) return html("div", { class: "tile" }, name, "no answer: it failed");
  const verdict = { true: "right: ", false: "wrong: " }[pass[RIGHT]] ?? "";
  const answer = html("span", { class: pass[RIGHT] === false ? "wrong" : "said" }, `${verdict}${texts[pass[TEXT]] || "(nothing)"}`);
  const parts = [...overlay(item, pass[FATES]), name, answer];
  if (arm.cache) parts.push(html("small", {}, "all patches are read, the cache is cut"));
  if (pass[DISTANCE] !== null) parts.push(html("small", {}, `KL ${pass[DISTANCE]} nats`));
  return html("div", { class: "tile", "data-arm": arm.name }, ...parts);
}

function score(item) {
  const judged = item.passes.filter((pass) => pass !== null && pass[RIGHT] !== null);
  if (judged.length === 0) return "";
  return `${judged.filter((pass) => pass[RIGHT]).length} of ${judged.length} right`;
}

function entry(item) {
  const told = [item.category, item.answer === null ? null : `expected ${item.answer}`, item.frames ? `frame 1 of ${item.frames}` : null];
  const summary = html(
    "summary",
    {},
    html("span", { class: "question" }, item.question),
    html("span", { class: "told" }, told.filter(Boolean).join(" · ")),
    html("span", { class: "told score" }, score(item)),
  );
  const details = html("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector(".tiles-of-arms")) return;
    const tiles = arms.map((arm, at) => tile(item, arm, item.passes[at]));
    details.append(html("div", { class: "tiles-of-arms" }, ...tiles));
  });
  return html("li", { "data-item": item.id }, details);
}

// What can be shown: everything, what some recipe loses, what one recipe loses or gains.
const right = (item, at) => item.passes[at]?.[RIGHT] ?? null;
const choices = [["all items", () => true]];
if (items.some((item) => right(item, 0) !== null)) {
  const recipes = arms.map((arm, at) => [arm, at]).filter(([arm]) => arm.kind === "recipe");
  choices.push(["the full model is wrong", (item) => right(item, 0) === false]);
  for (const [arm, at] of recipes) {
    choices.push([`${arm.name} loses`, (item) => right(item, 0) === true && right(item, at) === false]);
    choices.push([`${arm.name} gains`, (item) => right(item, 0) === false && right(item, at) === true]);
  }
}
const categories = [...new Set(items.map((item) => item.category).filter(Boolean))];

const state = { first: 0 };

function chosen() {
  const [, fits] = choices[element("show").selectedIndex];
  const category = element("category").value;
  const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  return items.filter((item) => {
    const text = `${item.id} ${item.question} ${item.answer ?? ""}`.toLowerCase();
    return fits(item) && (category === "" || item.category === category) && words.every((word) => text.includes(word));
  });
}

function show() {
  const found = chosen();
  state.first = Math.min(state.first, Math.max(found.length - 1, 0));
  state.first -= state.first % PAGE_ITEMS;
  const shown = found.slice(state.first, state.first + PAGE_ITEMS);
  element("items").replaceChildren(...shown.map(entry));
  const missing = page.left_out + page.unread;
  const lack = missing ? `; ${missing} pictures are not in this page` : "";
  element("count").textContent = `${found.length} of ${items.length} items${lack}`;
  element("pages").hidden = found.length <= PAGE_ITEMS;
  element("page").textContent = `${state.first + 1} to ${state.first + shown.length}`;
  element("before").disabled = state.first === 0;
  element("behind").disabled = state.first + PAGE_ITEMS >= found.length;
}

function turn(pages) {
  state.first += pages * PAGE_ITEMS;
  show();
}

element("show").append(...choices.map(([name]) => html("option", {}, name)));
element("category").append(html("option", { value: "" }, "all"), ...categories.map((name) => html("option", { value: name }, name)));
for (const id of ["show", "category", "search"]) {
  element(id).addEventListener("input", () => {
    state.first = 0;
    show();
  });
}
element("before").addEventListener("click", () => turn(-1));
element("behind").addEventListener("click", () => turn(1));
element("category").parentElement.hidden = categories.length === 0;
element("filters").hidden = false;
element("fates").hidden = false;
show();
