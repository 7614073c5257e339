// State of the page and the views that follow it.

const state = { step: LAST_STEP, shown: 0, pinned: null, layer: null };
const at = (id) => document.getElementById(id);

/** The pointer shows a patch while it is there; click, tap and focus pin one. */
function choosePatch(patch, how) {
  if (how === "hover") state.shown = patch ?? state.pinned ?? state.shown;
  else {
    const lets = how === "escape" || (how === "click" && patch === state.pinned);
    state.pinned = lets ? null : patch;
    state.shown = patch;
    patches.makeCurrent(patch);
    at("spoken").textContent = lets ? "" : spokenStory(patch);
  }
  showPatch();
}

function chooseStep(step) {
  state.step = Math.min(Math.max(step, 0), LAST_STEP);
  at(`step-${state.step}`).checked = true;
  patches.showStep(state.step);
  at("step-caption").textContent = stepCaption(state.step);
  showLegend(state.step);
  showPatch();
}

function chooseLayer(layer) {
  state.layer = layer;
  for (const chart of charts) chart.showLayer(layer);
}

function chooseFrame(frame) {
  definePanels(frame);
  patches = new PatchGrid(at("picture"), frame, choosePatch);
  Object.assign(state, { pinned: null, shown: patches.current });
  buildSteps(frame);
  chooseStep(state.step);
}

/** What a step did, in a sentence. */
function stepCaption(step) {
  const { name, place, note, tokens } = steps[step];
  if (step === 0) return `The picture: ${plural(tokens.length, "patch", "patches")}, each of them a visual token.`;
  const dropped = droppedAt.filter((one) => one === step).length;
  const merged = members[step].filter((held) => held.length > 1).length;
  const parts = [`${steps[step - 1].tokens.length} → ${plural(tokens.length, "token")}`];
  if (note) parts.push(note);
  if (dropped) parts.push(`${plural(dropped, "patch", "patches")} dropped here`);
  if (merged) parts.push(`${plural(merged, "merged token")} outlined`);
  return `${name}, ${place}: ${parts.join("; ")}.`;
}

/** Marks of the stages that dropped patches so far, and the outline of merged ones. */
function showLegend(step) {
  const items = [];
  for (let stage = 1; stage <= step; stage += 1) {
    const count = droppedAt.filter((one) => one === stage).length;
    const { name, place } = steps[stage];
    if (count) items.push(html("li", {}, glyph(stage - 1), `${count} dropped by ${name}, ${place}`));
  }
  if (members[step].some((held) => held.length > 1)) {
    items.push(html("li", {}, outlineGlyph(), "patches merged into one token"));
  }
  if (boxes.some((_, patch) => position(patch) !== "inside")) {
    items.push(html("li", {}, hatchGlyph(), "padding, outside the picture"));
  }
  at("legend").replaceChildren(...items);
}

function showPatch() {
  patches.showPatch(state.shown, state.pinned, state.step);
  for (const chart of charts) chart.showPatch(seenBy(state.shown));
  tellStory(state.shown);
}

/** The story panel; it grows and never shrinks, so that nothing below it jumps. */
function tellStory(patch) {
  const panel = at("story");
  at("story-title").replaceChildren(`Patch ${patch}`, html("small", {}, whereabouts(patch)));
  panel.replaceChildren(deeds(patch), ...strips(patch));
  const tallest = Math.max(panel.offsetHeight, parseFloat(panel.style.minHeight) || 0);
  panel.style.minHeight = `${tallest}px`;
}

/** One line a stage. */
function deeds(patch) {
  const lines = steps.slice(1).map(({ name, place }, index) => {
    const number = index + 1;
    const { kind, text, partners, score, rank, of } = fate(patch, number);
    const others = partners ? [html("small", {}, `patches ${listed(partners)}`)] : [];
    const ranked = rank === undefined ? [] : [html("small", { class: "score" }, `score ${figure(score)}, rank ${rank} of ${of}`)];
    const what = html("span", { class: "deed" }, html("span", {}, text), ...others, ...ranked);
    const who = html("span", { class: "who" }, ...breakable(name), html("small", {}, place));
    const line = html("li", { class: kind, "data-step": number }, glyph(index), who, what);
    if (number === state.step) line.setAttribute("aria-current", "step");
    return line;
  });
  return lines.length ? html("ol", {}, ...lines) : html("p", { class: "note" }, "No stage acted: every patch stays.");
}

/** Which layers see the patch, and which caches hold it. */
function strips(patch) {
  const title = `decoder layers that ${decoder.ran ? "see" : "would see"} it`;
  const parts = [strip(title, seenBy(patch), "seen"), html("p", { id: "seen-text" }, seenText(patch))];
  if (decoder.ran && decoder.caches) {
    const when = decoder.caches.repeated ? "after the last answer token" : `after ${decoder.caches.policies.join(", ")}`;
    parts.push(strip(`caches ${when}`, cachedIn(patch), "cached"));
  }
  return [...parts, html("p", { id: "cached-text" }, cachedText(patch)), key()];
}

function strip(title, states, name) {
  const cells = states.map((one, layer) => html("i", { class: one, "data-layer": layer }));
  const every = Math.max(1, Math.ceil(states.length / 8));
  const numbers = states.map((_, layer) => html("span", {}, layer % every === 0 ? String(layer) : ""));
  const row = html("div", { class: "cells", id: `${name}-strip`, "aria-hidden": "true" }, ...cells);
  const scale = html("div", { class: "cells scale", "aria-hidden": "true" }, ...numbers);
  return html("div", { class: "strip" }, html("h4", {}, title), row, scale);
}

/** What the cells of the strips mean. */
function key() {
  const known = [["own", "as itself"], ["merged", "in a merged token"], ["gone", "gone"]];
  if (decoder.caches) known.push(["evicted", "evicted"]);
  const items = known.map(([kind, words]) => html("span", {}, html("i", { class: kind }), words));
  return html("p", { class: "key", "aria-hidden": "true" }, ...items);
}

function buildSteps(frame) {
  const labels = steps.map(({ name, short_place, tokens }, step) => {
    const input = html("input", { type: "radio", name: "step", id: `step-${step}`, value: step });
    const count = step ? plural(tokens.length, "token") : "";
    const mark = step ? [glyph(step - 1)] : [];
    const words = html("span", { class: "words" }, ...mark, html("b", {}, ...breakable(name)), html("small", {}, short_place), html("small", {}, count));
    return html("label", {}, input, thumbnail(frame, step), words);
  });
  at("steps").replaceChildren(at("steps").firstElementChild, ...labels);
  at("steps").hidden = steps.length < 2;
}

function buildFrames() {
  if (grid.frames < 2) return;
  const labels = Array.from({ length: grid.frames }, (_, frame) => {
    const input = html("input", { type: "radio", name: "frame", value: frame, ...(frame ? {} : { checked: "" }) });
    return html("label", {}, input, String(frame));
  });
  at("frames").append(...labels);
  at("frames").hidden = false;
  at("frames").addEventListener("change", (event) => chooseFrame(Number(event.target.value)));
}

/** Page keys, + and - go through the stages from wherever one stands in the picture. */
function stepByKey(event) {
  const way = { PageDown: 1, "+": 1, PageUp: -1, "-": -1 }[event.key];
  if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  chooseStep(state.step + way);
  at("spoken").textContent = stepCaption(state.step);
}

let patches;
let charts = [];
buildFrames();
charts = buildCharts(at("curves"), chooseLayer);
chooseFrame(0);
at("steps").addEventListener("change", (event) => chooseStep(Number(event.target.value)));
at("picture").addEventListener("keydown", stepByKey);
new ResizeObserver(() => {
  at("story").style.minHeight = "";
  for (const chart of charts) chart.draw();
}).observe(at("curves"));
