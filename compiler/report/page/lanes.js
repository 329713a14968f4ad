// The timeline beneath the memories, on the same axis: loops, operations, copies and waits.

function drawLanes(panel, context) {
  const { colors } = panel.page;
  context.save();
  context.textBaseline = "middle";
  for (const lane of panel.lanes) {
    context.textAlign = "right";
    context.fillStyle = colors.muted;
    context.fillText(fitted(context, lane.label, panel.left - 12), panel.left - 8, (lane.top + lane.bottom) / 2);
    context.fillStyle = colors.grid;
    context.fillRect(panel.left, lane.bottom - 1, panel.right - panel.left, 1);
  }
  context.beginPath();
  context.rect(panel.left, panel.lanes[0].top, panel.right - panel.left, panel.axisTop - panel.lanes[0].top);
  context.clip();
  context.textAlign = "left";
  for (const lane of panel.lanes) DRAW_LANE[lane.kind](panel, context, lane);
  context.restore();
}

const DRAW_LANE = {
  loops(panel, context, lane) {
    const { model, state, colors } = panel.page;
    model.loops.forEach((loop, i) => {
      const [x0, x1] = [loop.start, loop.end].map((t) => panel.toX(model.at(panel.plan, state.axis, t)));
      const inset = 3 + 2 * Math.min(model.loopDepth[i], 3);
      context.fillStyle = model.loopDepth[i] % 2 ? colors["lane-2"] : colors.lane;
      bar(panel, context, x0, x1, { top: lane.top + inset - 1, bottom: lane.bottom - 2 });
      if (model.loopDepth[i] === 0) barText(panel, context, x0, x1, lane, `× ${withCommas(loop.tripCount)}`);
    });
  },

  operations(panel, context, lane) {
    const { model, state, colors } = panel.page;
    const { plan } = panel;
    const { axis } = state;
    const [from, to] = panel.window;
    const last = Math.min(model.operationAt(plan, axis, to), model.end - 1);
    const colorsOf = [colors.lane, colors["lane-2"]];
    const written = [];
    let edge = -Infinity;
    for (let t = model.operationAt(plan, axis, from); t <= last; t += 1) {
      const [x0, x1] = operationBar(panel, t);
      // What ends within a pixel that is painted already would change nothing.
      if (x1 <= edge + 0.5 && x1 - x0 < 1) continue;
      context.fillStyle = colorsOf[t % 2];
      bar(panel, context, x0, x1, lane);
      edge = x1;
      if (x1 - x0 > 30) written.push([x0, x1, model.operations.name[t]]);
    }
    for (const [x0, x1, name] of written) barText(panel, context, x0, x1, lane, name);
  },

  copies(panel, context, lane) {
    const { model, state, colors, matches } = panel.page;
    const { plan } = panel;
    const color = colors.copies[lane.link % colors.copies.length];
    for (let i = 0; i < plan.copies.link.length; i += 1) {
      if (plan.copies.link[i] !== lane.link) continue;
      const where = model.copyAt(plan, state.axis, i);
      if (where === null) continue;
      const [x0, x1] = where.map(panel.toX);
      if (x1 < panel.left || x0 > panel.right) continue;
      const buffer = plan.residencies.buffer[plan.copies.source[i]];
      context.fillStyle = state.isFiltered && !matches[buffer] ? colors.dim : color;
      bar(panel, context, x0, x1, lane);
      // Where operations are equally wide, copies wait long for their use and lie over each other.
      if (x1 - x0 > 40 && state.axis === "time") barText(panel, context, x0, x1, lane, model.buffers.name[buffer], colors["on-dark"]);
    }
  },

  waits(panel, context, lane) {
    const { model, state, colors } = panel.page;
    context.fillStyle = colors.stall;
    for (let t = 0; t <= model.end; t += 1) {
      if (!(panel.plan.waits[t] > 0)) continue;
      const [x0, x1] = waitBar(panel, t, state.axis);
      if (x1 >= panel.left && x0 <= panel.right) bar(panel, context, x0, x1, lane);
    }
  },
};

/** Returns the pixels between which an operation runs, without the wait before it. */
function operationBar(panel, t) {
  const { model, state } = panel.page;
  const wait = state.axis === "time" ? panel.plan.waits[t] : 0;
  return [panel.toX(model.at(panel.plan, state.axis, t) + wait), panel.toX(model.at(panel.plan, state.axis, t + 1))];
}

/** Returns the pixels of the wait before `t`; where all operations are equally wide, it stands at the left of its own. */
function waitBar(panel, t, axis) {
  const start = panel.page.model.at(panel.plan, axis, t);
  return [panel.toX(start), panel.toX(start + (axis === "time" ? panel.plan.waits[t] : 0.3))];
}

function bar(panel, context, x0, x1, { top, bottom }) {
  const [left, right] = [Math.max(x0, panel.left - 2), Math.min(x1, panel.right + 2)];
  context.fillRect(left, top + 2, Math.max(right - left - (right - left > 3 ? 0.7 : 0), 0.8), bottom - top - 4);
  panel.drawn += 1;
}

function barText(panel, context, x0, x1, lane, text, color = panel.page.colors.ink) {
  const start = Math.max(x0, panel.left) + 4;
  const shown = fitted(context, text, Math.min(x1, panel.right) - start - 3);
  if (shown.length < 2) return;
  context.fillStyle = color;
  context.fillText(shown, start, (lane.top + lane.bottom) / 2 + 0.5);
}

function outlineOperation(panel, context, lane, t, color) {
  if (t >= panel.page.model.end) return;
  outlineBar(panel, context, lane, operationBar(panel, t), color);
}

function outlineCopy(panel, context, i, color) {
  const { model, state } = panel.page;
  const lane = panel.lanes.find(({ kind, link }) => kind === "copies" && link === panel.plan.copies.link[i]);
  const where = model.copyAt(panel.plan, state.axis, i);
  if (lane !== undefined && where !== null) outlineBar(panel, context, lane, where.map(panel.toX), color);
}

function outlineBar(panel, context, lane, [x0, x1], color) {
  const [left, right] = [Math.max(x0 - 1, panel.left - 3), Math.min(Math.max(x1, x0 + 2) + 1, panel.right + 3)];
  if (right <= left) return;
  context.strokeStyle = color;
  context.lineWidth = 2;
  context.strokeRect(left, lane.top + 1.5, right - left, lane.bottom - lane.top - 3);
}

/** Returns what of a lane is at a pixel; of several the one whose middle is nearest. */
function hitLane(panel, lane, x) {
  const { model, state } = panel.page;
  const position = panel.toPosition(x);
  const t = model.operationAt(panel.plan, state.axis, position);
  const nothing = { kind: "place", t, lane, position };
  if (lane.kind === "operations") return t < model.end ? { kind: "operation", number: t, t } : nothing;
  if (lane.kind === "waits") {
    const near = [t, t + 1].find((time) => {
      const [x0, x1] = waitBar(panel, Math.min(time, model.end), state.axis);
      return time <= model.end && panel.plan.waits[time] > 0 && x >= x0 - 3 && x <= Math.max(x1, x0 + 1) + 3;
    });
    return near === undefined ? nothing : { kind: "wait", number: near, t: near };
  }
  if (lane.kind === "loops") {
    const inside = model.loops.filter(({ start, end }) => start <= t && t < end);
    return inside.length ? { kind: "loop", loops: inside, t } : nothing;
  }
  let best = null;
  let nearest = Infinity;
  for (let i = 0; i < panel.plan.copies.link.length; i += 1) {
    if (panel.plan.copies.link[i] !== lane.link) continue;
    const where = model.copyAt(panel.plan, state.axis, i);
    if (where === null) continue;
    const [x0, x1] = where.map(panel.toX);
    const distance = Math.abs(x - (x0 + x1) / 2);
    if (x >= x0 - 3 && x <= x1 + 3 && distance < nearest) [best, nearest] = [i, distance];
  }
  if (best === null) return nothing;
  return { kind: "copy", number: best, buffer: panel.plan.residencies.buffer[panel.plan.copies.source[best]], t };
}

/** Draws the ticks of the axis below all, and faint lines up through the memories. */
function drawTimeAxis(panel, context) {
  const { colors, state } = panel.page;
  const [from, to] = panel.window;
  const found = ticks(from, to, Math.max((panel.right - panel.left) / 110, 1), 10);
  const isTime = state.axis === "time";
  if (!isTime && found.step < 1) found.values = found.values.filter(Number.isInteger);
  const texts = isTime ? printMoments(found) : found.values.map((t) => `t=${withCommas(t)}`);
  context.textBaseline = "middle";
  found.values.forEach((value, i) => {
    const x = panel.toX(value);
    context.fillStyle = colors.muted;
    context.fillRect(Math.round(x), panel.axisTop, 1, 4);
    const half = context.measureText(texts[i]).width / 2;
    context.textAlign = "center";
    context.fillText(texts[i], Math.min(Math.max(x, panel.left + half), panel.right - half), panel.axisTop + 12);
  });
}
