// The story of one patch in words; nothing here touches the document.

const LISTED = 8; // partners that are named before "and n more"

const plural = (count, noun, many = `${noun}s`) => `${count} ${count === 1 ? noun : many}`;

/** Four significant digits, as short as they come; very small values as powers of ten. */
function figure(value) {
  if (value === 0 || Math.abs(value) >= 1e-3) return String(Number(value.toPrecision(4)));
  const [digits, power] = value.toExponential(3).split("e-");
  return `${Number(digits)} × 10⁻${[...power].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
}

/** `1, 2, 3 and 9 more` */
function listed(patches) {
  const shown = patches.slice(0, LISTED).join(", ");
  const more = patches.length - LISTED;
  return more > 0 ? `${shown} and ${more} more` : shown;
}

/** `0–3, 5` for sorted numbers. */
function ranges(numbers) {
  const runs = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run && number === run[1] + 1) run[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
}

/** What step `number` (from 1) did to `patch`: kind, words, new partners, score and rank if any. */
function fate(patch, number) {
  if (isGone(patch, number - 1)) return { kind: "absent", text: "no longer there" };
  const { scores, ranks } = steps[number];
  const from = steps[number - 1].holder[patch];
  const scored = scores && scores[from] !== null;
  const rank = scored ? { score: scores[from], rank: ranks[from], of: scores.length } : {};
  return { ...deed(patch, number), ...rank };
}

function deed(patch, number) {
  const own = members[number - 1][steps[number - 1].holder[patch]];
  if (isGone(patch, number)) return { kind: "dropped", text: `dropped${inCompany(own)}` };
  const all = companions(patch, number);
  const joined = new Set(all.map((one) => steps[number - 1].holder[one])).size > 1;
  const marked = protection(patch, number);
  if (!joined) return { kind: "kept", text: `kept${inCompany(all)}${marked}` };
  const inside = new Set(own);
  const partners = all.filter((one) => !inside.has(one));
  const text = `${merging(own, partners, tokenOf(patch, number))}${marked}`;
  return { kind: "merged", text, partners };
}

const inCompany = (all) => (all.length > 1 ? ` in a token of ${all.length} patches` : "");

function merging(own, partners, token) {
  const who = own.length > 1 ? `its token of ${own.length} patches merged` : "merged";
  return `${who} with ${plural(partners.length, "patch", "patches")} into token ${token}`;
}

/** `, protected` at the step that marked it; `, still protected` later. */
function protection(patch, number) {
  if (!protectedRows[number].has(steps[number].holder[patch])) return "";
  const before = protectedRows[number - 1].has(steps[number - 1].holder[patch]);
  return before ? ", still protected" : ", protected";
}

/** For each decoder layer how it sees `patch`: own, merged or gone. */
function seenBy(patch) {
  return decoder.seen.map((step) => {
    const count = companions(patch, step).length;
    return count === 0 ? "gone" : count === 1 ? "own" : "merged";
  });
}

/** For each decoder layer what its cache holds of `patch`: own, merged, evicted or never. */
function cachedIn(patch) {
  return seenBy(patch).map((state, layer) => {
    if (state === "gone") return "never";
    const set = decoder.caches.layers[layer];
    const held = set === null || cachedSets[set].has(tokenOf(patch, decoder.seen[layer]));
    return held ? state : "evicted";
  });
}

const layersWith = (states, ...wanted) =>
  states.flatMap((state, layer) => (wanted.includes(state) ? [layer] : []));

/** `layer 3`, `layers 0–3` or `all 12 layers`. */
function layerWords(layers) {
  if (layers.length === decoder.layers && layers.length > 1) return `all ${layers.length} layers`;
  return `${layers.length === 1 ? "layer" : "layers"} ${ranges(layers)}`;
}

function seenText(patch) {
  const states = seenBy(patch);
  const own = layersWith(states, "own");
  const merged = layersWith(states, "merged");
  const parts = [];
  if (own.length) parts.push(`by ${layerWords(own)} as itself`);
  if (merged.length) parts.push(`by ${layerWords(merged)} inside a merged token`);
  const seen = decoder.ran ? "Seen" : "Would be seen"; // layers behind the last stage did not run
  return `${seen} ${parts.join(", ") || "by no layer"}.`;
}

function cachedText(patch) {
  if (!decoder.ran) return "The run stopped before its caches were full.";
  if (!decoder.caches) return "No cache policy: each layer’s cache holds what the layer saw.";
  const states = cachedIn(patch);
  const held = layersWith(states, "own", "merged");
  const evicted = layersWith(states, "evicted");
  const parts = [held.length ? `Cached in ${layerWords(held)}` : "In no cache"];
  if (evicted.length) parts.push(`evicted from ${layerWords(evicted)}`);
  return `${parts.join(", ")}.`;
}

/** `Patch 37`, where it is, and a word if it is not wholly inside the picture. */
function whereabouts(patch) {
  const frame = grid.frames > 1 ? `frame ${frameOf(patch)}, ` : "";
  const where = `${frame}row ${rowOf(patch)}, column ${columnOf(patch)}`;
  const lies = { inside: "", partly: ", partly outside the picture", outside: ", outside the picture (padding)" };
  return where + lies[position(patch)];
}

/** The whole story in one breath, for whoever listens. */
function spokenStory(patch) {
  const told = [];
  for (let number = 1; number <= LAST_STEP; number += 1) {
    const { kind, text, partners, rank, of } = fate(patch, number);
    if (kind === "absent") break;
    const others = partners ? `: ${listed(partners)}` : "";
    const ranked = rank === undefined ? "" : `, rank ${rank} of ${of}`;
    told.push(`${steps[number].name} at ${steps[number].place}: ${text}${others}${ranked}.`);
  }
  const words = [`Patch ${patch}, ${whereabouts(patch)}.`, ...told, seenText(patch), cachedText(patch)];
  return words.join(" ");
}
