// The picture after each stage: dropped patches dark with a mark, merged ones outlined.

const OUTLINE_INSET = 0.06; // of a patch, so that neighbouring outlines stay apart

/** The box around the picture and all patches, [left, top, width, height], with room for lines. */
function viewBox() {
  const { width, height } = page.picture;
  const edge = (pick, side, start) => boxes.reduce((found, box) => pick(found, box[side]), start);
  const [left, top] = [edge(Math.min, 0, 0), edge(Math.min, 1, 0)];
  const [right, bottom] = [edge(Math.max, 2, width), edge(Math.max, 3, height)];
  const margin = 0.006 * Math.max(right - left, bottom - top);
  return [left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin];
}

const VIEW = viewBox();

const patchesOf = (frame) =>
  Array.from({ length: PATCHES_A_FRAME }, (_, at) => frame * PATCHES_A_FRAME + at);

/** The patch beside another one in its frame, undefined over the edge. */
function neighbour(patch, rows, columns) {
  const [row, column] = [rowOf(patch) + rows, columnOf(patch) + columns];
  const inside = row >= 0 && row < grid.rows && column >= 0 && column < grid.columns;
  return inside ? frameOf(patch) * PATCHES_A_FRAME + row * grid.columns + column : undefined;
}

/** Path data of the sides of a patch behind which no patch of `group` lies, just inside of it. */
function sides(patch, group) {
  let [left, top, right, bottom] = boxes[patch];
  const inset = OUTLINE_INSET * Math.min(right - left, bottom - top);
  const [above, below, before, behind] = [[-1, 0], [1, 0], [0, -1], [0, 1]].map(([rows, columns]) =>
    group.has(neighbour(patch, rows, columns)));
  // A side reaches to the patch's edge where the group goes on, so that lines close.
  left += before ? 0 : inset;
  right -= behind ? 0 : inset;
  top += above ? 0 : inset;
  bottom -= below ? 0 : inset;
  return [
    above ? "" : `M${round(left)} ${round(top)}H${round(right)}`,
    below ? "" : `M${round(left)} ${round(bottom)}H${round(right)}`,
    before ? "" : `M${round(left)} ${round(top)}V${round(bottom)}`,
    behind ? "" : `M${round(right)} ${round(top)}V${round(bottom)}`,
  ].join("");
}

/** Path data around a group of patches, those of one frame. */
function outline(patches, frame) {
  const group = new Set(patches.filter((patch) => frameOf(patch) === frame));
  return [...group].map((patch) => sides(patch, group)).join("");
}

/** Outlines of everything that is merged after `step`. */
function mergedOutline(step, frame) {
  return members[step].filter((held) => held.length > 1).map((held) => outline(held, frame)).join("");
}

/** What the panels of a frame refer to: clip paths of what is gone, marks and outlines. */
function definePanels(frame) {
  const patches = patchesOf(frame);
  const shapes = steps.flatMap((_, step) => {
    const gone = patches.filter((patch) => isGone(patch, step)).map((patch) => boxPath(boxes[patch]));
    const marked = patches.filter((patch) => droppedAt[patch] === step);
    const marks = marked.map((patch) => markPath(step - 1, boxes[patch])).join("");
    return [
      svg("clipPath", { id: `gone-${step}` }, svg("path", { d: gone.join("") })),
      svg("path", { id: `marks-${step}`, d: marks, fill: step ? colourOf(step - 1) : "none" }),
      svg("path", { id: `outline-${step}`, d: mergedOutline(step, frame) }),
    ];
  });
  const { width, height } = page.picture;
  const area = svg("clipPath", { id: "picture-area" }, svg("rect", { width, height }));
  document.getElementById("defs").replaceChildren(svg("defs", {}, area, ...shapes));
}

const use = (id, attributes = {}) => svg("use", { href: `#${id}`, ...attributes });

/** Padding, picture, what the model does not see of it, and what is gone, back to front. */
function ground(frame, step) {
  const [left, top, right, bottom] = covered();
  const { width, height } = page.picture;
  const outside = `${boxPath([0, 0, width, height])}${boxPath([left, top, right, bottom])}`;
  const clip = { "clip-path": `url(#gone-${step})` };
  const [x, y, w, h] = VIEW;
  return [
    svg("path", { class: "padding", d: boxPath([left, top, right, bottom]) }),
    use(`frame-${frame}`),
    svg("path", { class: "unseen", d: outside, "fill-rule": "evenodd", "clip-path": "url(#picture-area)" }),
    svg("rect", { class: "gone-padding", x, y, width: w, height: h, ...clip }),
    svg("g", clip, use(`frame-${frame}`, { filter: "url(#grey)" })),
  ];
}

/** The box that all patches cover together. */
function covered() {
  const edge = (pick, side) => boxes.reduce((found, box) => pick(found, box[side]), boxes[0][side]);
  return [edge(Math.min, 0), edge(Math.min, 1), edge(Math.max, 2), edge(Math.max, 3)];
}

/** Outlines, dark below and white above. */
const outlines = (step) => [
  use(`outline-${step}`, { class: "outline dark" }),
  use(`outline-${step}`, { class: "outline white" }),
];

/** A small panel of the state after `step`. */
function thumbnail(frame, step) {
  const marks = steps.slice(0, step + 1).map((_, at) => use(`marks-${at}`));
  const parts = [...ground(frame, step), ...marks, ...outlines(step)];
  return svg("svg", { class: "thumbnail", viewBox: VIEW.join(" "), "aria-hidden": "true" }, ...parts);
}
