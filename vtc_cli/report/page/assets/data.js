// What happened, as the page carries it, and what follows from it once for all.

const page = JSON.parse(document.getElementById("page-data").textContent);
const { boxes, steps, grid, decoder } = page;
const GONE = -1;
const LAST_STEP = steps.length - 1;
const PATCHES_A_FRAME = grid.rows * grid.columns;

/** For each step and row the patches that the row's token holds. */
const members = steps.map(({ tokens, holder }) => {
  const held = tokens.map(() => []);
  holder.forEach((row, patch) => row !== GONE && held[row].push(patch));
  return held;
});

/** For each step the rows that no later stage may drop. */
const protectedRows = steps.map((step) => new Set(step.protected));

/** For each patch the step that dropped it, Infinity if none did. */
const droppedAt = boxes.map((_, patch) => {
  const step = steps.findIndex(({ holder }) => holder[patch] === GONE);
  return step < 0 ? Infinity : step;
});

/** Tokens (by anchor) that each set of cached entries holds. */
const cachedSets = (decoder.caches?.sets ?? []).map((anchors) => new Set(anchors));

const isGone = (patch, step) => steps[step].holder[patch] === GONE;

/** Patches inside the token that holds `patch` after `step`, itself included. */
function companions(patch, step) {
  const row = steps[step].holder[patch];
  return row === GONE ? [] : members[step][row];
}

/** The anchor of the token that holds `patch` after `step`. */
const tokenOf = (patch, step) => steps[step].tokens[steps[step].holder[patch]];

const frameOf = (patch) => Math.floor(patch / PATCHES_A_FRAME);
const rowOf = (patch) => Math.floor((patch % PATCHES_A_FRAME) / grid.columns);
const columnOf = (patch) => patch % grid.columns;

/** Whether a patch lies inside the picture, partly outside or outside of it. */
function position(patch) {
  const [left, top, right, bottom] = boxes[patch];
  const { width, height } = page.picture;
  const slack = 0.02 * (right - left); // rounding of the processor's own resize
  if (right <= slack || bottom <= slack || left >= width - slack || top >= height - slack) {
    return "outside";
  }
  const whole = left >= -slack && top >= -slack && right <= width + slack && bottom <= height + slack;
  return whole ? "inside" : "partly";
}
