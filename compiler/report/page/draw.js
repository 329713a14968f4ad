// The picture of a memory: time × offset, a rectangle per residency.

const MOST_LABELS = 90;

function drawMemory(panel, context, picture) {
  const { colors } = panel.page;
  const { left, right } = panel;
  const { top, bottom } = picture;
  context.fillStyle = colors.canvas;
  context.fillRect(left, top, right - left, bottom - top);
  drawTitle(panel, context, picture);
  drawByteTicks(panel, context, picture);
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  drawReserved(panel, context, picture);
  const labelled = drawResidencies(panel, context, picture);
  drawLabels(panel, context, labelled);
  drawOccupied(panel, context, picture);
  drawLimits(panel, context, picture);
  context.restore();
}

function drawByteTicks(panel, context, picture) {
  const { colors, model } = panel.page;
  const toY = panel.toY(picture);
  const [low, high] = panel.offsets(picture.space);
  const { step, values } = ticks(low, high, Math.max((picture.bottom - picture.top) / 48, 1.5), 2);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of values) {
    const y = Math.round(toY(value)) + 0.5;
    context.fillStyle = colors.grid;
    context.fillRect(panel.left, y - 0.5, panel.right - panel.left, 1);
    if (y < picture.top - 1 || y > picture.bottom + 2) continue;
    context.fillStyle = colors.muted;
    context.fillText(step >= 1 ? printOffset(value, step) : "", panel.left - 8, Math.max(Math.min(y, picture.bottom - 4), picture.top + 4));
  }
}

/** Names the memory above its picture, where there are several. */
function drawTitle(panel, context, picture) {
  if (panel.pictures.length < 2) return;
  const { colors, model } = panel.page;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillStyle = colors.muted;
  const text = `${model.spaces[picture.space].name} · ${peakText(panel.page, panel.plan, picture.space)}`;
  context.fillText(fitted(context, text, panel.right - panel.left), panel.left, picture.top - 9);
}

/** Returns an offset with as many digits as tell it from its neighbors. */
function printOffset(value, step) {
  if (value === 0) return "0";
  const text = printBytes(value);
  const unit = 1024 ** Math.min(Math.floor(Math.log2(Math.max(value, 1)) / 10), 4);
  return step >= unit / 128 ? text.replace(/\.00(?= )|\.0(?= )/, "") : `0x${value.toString(16)}`;
}

/** Draws what operations keep for themselves at the bottom of a memory. */
function drawReserved(panel, context, picture) {
  const { reserved } = panel.plan.usage[picture.space];
  if (!reserved.some((bytes) => bytes > 0)) return;
  const toY = panel.toY(picture);
  context.fillStyle = panel.page.colors.reserved;
  context.beginPath();
  const end = stepsInWindow(panel, reserved, (x, bytes, isFirst) => {
    if (isFirst) context.moveTo(x, toY(0));
    context.lineTo(x, toY(bytes));
  });
  context.lineTo(end, toY(0));
  context.fill();
}

/** Calls `point(x, value, isFirst)` for the corners of a step curve in the window; at most two levels a pixel. Returns the last x. */
function stepsInWindow(panel, values, point) {
  const { model, state } = panel.page;
  const { plan, toX } = panel;
  const { axis } = state;
  const [from, to] = panel.window;
  const last = model.operationAt(plan, axis, to);
  let t = model.operationAt(plan, axis, from);
  let x = toX(model.at(plan, axis, t));
  let isFirst = true;
  while (t <= last) {
    // Within a pixel, the highest level counts.
    let level = values[t];
    let next = toX(model.at(plan, axis, t + 1));
    t += 1;
    while (t <= last && next < x + 1) {
      level = Math.max(level, values[t]);
      t += 1;
      next = toX(model.at(plan, axis, t));
    }
    point(x, level, isFirst);
    point(next, level, false);
    isFirst = false;
    x = next;
  }
  return x;
}

/** Draws the rectangles; returns those that have room for a name. */
function drawResidencies(panel, context, picture) {
  const { model, state, matches, colors } = panel.page;
  const { residencies, inSpace } = panel.plan;
  const { ratio } = panel;
  const isFiltered = state.isFiltered;
  const boxes = new Boxes(panel, picture);
  const dim = toPixel(colors.dim);
  const labelled = [];
  const marked = [];
  const faded = [];
  panel.pixels.fill(0);
  for (const i of inSpace[picture.space]) {
    if (!boxes.at(i)) continue;
    const buffer = residencies.buffer[i];
    if (isFiltered && !matches[buffer]) {
      faded.push(i);
      continue;
    }
    boxes.paint(colors.pixels[model.bucket[buffer]]);
    const width = (boxes.x1 - boxes.x0) / ratio;
    const height = (boxes.y1 - boxes.y0) / ratio;
    if (width <= 5 || height <= 5) continue;
    const [x0, x1, y0, y1] = [boxes.x0, boxes.x1, boxes.y0, boxes.y1].map((edge) => edge / ratio);
    if (width > 34 && height > 11) labelled.push({ buffer, i, x0, x1, y0, y1 });
    if (residencies.differs[i]) marked.push([x0, y1 - 3, width - 1, 2]);
  }
  for (const i of faded) if (boxes.at(i)) boxes.paint(dim);
  panel.putPixels(context);
  context.fillStyle = colors.differs;
  for (const bar of marked) context.fillRect(...bar);
  return labelled;
}

/** The rectangle of one residency after another, cut to the picture and in whole pixels of the screen. They are painted
 * into an array: a frame may have tens of thousands, for which calls of a canvas are too slow. */
class Boxes {
  constructor(panel, picture) {
    const { model, state } = panel.page;
    const { plan, ratio } = panel;
    const [from, to] = panel.window;
    const [low, high] = panel.offsets(picture.space);
    this.panel = panel;
    this.pixels = panel.pixels;
    this.width = panel.base.width;
    this.residencies = plan.residencies;
    this.size = model.buffers.size;
    this.edges = state.axis === "time" ? plan.edges : null;
    this.last = model.end + 1;
    [this.from, this.to, this.low, this.high] = [from, to, low, high];
    [this.left, this.right] = [panel.left - 2, panel.right + 2];
    [this.top, this.bottom, this.ratio] = [picture.top - 2, picture.bottom + 2, ratio];
    this.scaleX = (panel.right - panel.left) / (to - from);
    this.scaleY = (picture.bottom - picture.top) / (high - low);
    this.originX = panel.left - from * this.scaleX;
    this.originY = picture.bottom + low * this.scaleY;
  }

  /** Goes to a residency; returns whether anything of it is in view. */
  at(i) {
    const { residencies, edges, last, ratio } = this;
    const start = residencies.start[i];
    const end = Math.min(residencies.end[i], last);
    const left = edges === null ? start : edges[start];
    const right = edges === null ? end : edges[end];
    if (right <= this.from || left >= this.to) return false;
    const offset = residencies.offset[i];
    const top = offset + this.size[residencies.buffer[i]];
    if (top <= this.low || offset >= this.high) return false;
    this.x0 = Math.round(Math.max(this.originX + left * this.scaleX, this.left) * ratio);
    this.x1 = Math.round(Math.min(this.originX + right * this.scaleX, this.right) * ratio);
    this.y0 = Math.round(Math.max(this.originY - top * this.scaleY, this.top) * ratio);
    this.y1 = Math.round(Math.min(this.originY - offset * this.scaleY, this.bottom) * ratio);
    return true;
  }

  /** Paints it. A rim separates neighbors, but would eat up what is thin. */
  paint(pixel) {
    const { x0, x1, y0, y1, ratio, pixels, width } = this;
    const rim = x1 - x0 > 4 * ratio && y1 - y0 > 4 * ratio ? 1 : 0;
    const [right, bottom] = [Math.max(x1 - rim, x0 + 1), Math.max(y1 - rim, y0 + 1)];
    for (let row = y0 * width; row < bottom * width; row += width) {
      for (let place = row + x0; place < row + right; place += 1) pixels[place] = pixel;
    }
    this.panel.drawn += 1;
  }
}

/** Writes names and sizes into the largest rectangles. */
function drawLabels(panel, context, boxes) {
  const { model, colors } = panel.page;
  boxes.sort((a, b) => (b.x1 - b.x0) * (b.y1 - b.y0) - (a.x1 - a.x0) * (a.y1 - a.y0) || a.i - b.i);
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const { buffer, x0, x1, y0, y1 } of boxes.slice(0, MOST_LABELS)) {
    const start = Math.max(x0, panel.left) + 5;
    const room = Math.min(x1, panel.right) - start - 4;
    const name = fitted(context, model.buffers.name[buffer], room);
    if (name.length < 3) continue;
    const isTwoLines = y1 - y0 > 29;
    const middle = (y0 + y1) / 2;
    context.fillStyle = model.kinds[model.buffers.kind[buffer]].isLight ? colors["on-light"] : colors["on-dark"];
    context.fillText(name, start, isTwoLines ? middle - 6.5 : middle + 0.5);
    if (!isTwoLines) continue;
    context.globalAlpha = 0.78;
    const shape = model.buffers.shape[buffer];
    const size = printBytes(model.buffers.size[buffer]);
    context.fillText(fitted(context, shape ? `${size} · ${shape}` : size, room), start, middle + 7.5);
    context.globalAlpha = 1;
  }
}

/** Returns as much of a text as fits into a width, with an ellipsis where it is cut. */
function fitted(context, text, width) {
  // No letter of interest is narrower: names of ten thousand letters are cut before they are measured.
  const candidate = text.slice(0, Math.ceil(width / 2.5) + 1);
  if (candidate === text && context.measureText(text).width <= width) return text;
  let low = 0;
  let high = candidate.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`${candidate.slice(0, middle)}…`).width <= width) low = middle;
    else high = middle - 1;
  }
  return low ? `${candidate.slice(0, low)}…` : "";
}

/** Draws the line of what is occupied in all. */
function drawOccupied(panel, context, picture) {
  const { occupied } = panel.plan.usage[picture.space];
  const toY = panel.toY(picture);
  context.strokeStyle = panel.page.colors.ink;
  context.globalAlpha = 0.75;
  context.lineWidth = 1;
  context.beginPath();
  stepsInWindow(panel, occupied, (x, bytes, isFirst) => (isFirst ? context.moveTo(x, toY(bytes)) : context.lineTo(x, toY(bytes))));
  context.stroke();
  context.globalAlpha = 1;
}

/** Draws the capacity, the peak, and the moment that is chosen. */
function drawLimits(panel, context, picture) {
  const { model, colors, state } = panel.page;
  const { capacity } = model.spaces[picture.space];
  const { peak, peakTime } = panel.plan.usage[picture.space];
  const toY = panel.toY(picture);
  const y = toY(capacity);
  if (y >= picture.top && y <= picture.bottom) {
    context.strokeStyle = colors.stall;
    context.lineWidth = 1;
    context.setLineDash([5, 3]);
    context.beginPath();
    context.moveTo(panel.left, y);
    context.lineTo(panel.right, y);
    context.stroke();
    context.setLineDash([]);
  }
  if (peak > 0) {
    const x = middleOf(panel, peakTime);
    drawUpright(panel, context, picture, x, colors.ink, `peak ${printBytes(peak)}`);
  }
  if (state.moment !== null) {
    drawUpright(panel, context, picture, middleOf(panel, state.moment), colors.accent, `t = ${state.moment}`, true);
  }
}

/** Returns the pixel in the middle of an operation. */
function middleOf(panel, t) {
  const { model, state } = panel.page;
  const [from, to] = [t, t + 1].map((time) => model.at(panel.plan, state.axis, time));
  return panel.toX((from + to) / 2);
}

/** Draws an upright line with a flag at its top, or, if it is `low`, at its bottom. */
function drawUpright(panel, context, picture, x, color, text, low = false) {
  if (x < panel.left || x > panel.right) return;
  const { colors } = panel.page;
  context.strokeStyle = color;
  context.lineWidth = 1;
  context.setLineDash([2, 2]);
  context.beginPath();
  context.moveTo(Math.round(x) + 0.5, picture.top);
  context.lineTo(Math.round(x) + 0.5, picture.bottom);
  context.stroke();
  context.setLineDash([]);
  const width = context.measureText(text).width + 10;
  const start = x + width + 2 > panel.right ? x - width - 1 : x + 1;
  const top = low ? picture.bottom - 17 : picture.top + 2;
  context.fillStyle = color;
  context.fillRect(start, top, width, 15);
  context.fillStyle = colors.canvas;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(text, start + 5, top + 8);
}

// ---- over the picture: what is selected, and what the pointer is at

function drawSelection(panel, context) {
  const { state } = panel.page;
  if (state.selected === null) return;
  if (state.selected.kind === "buffer") drawSelectedBuffer(panel, context, state.selected.number);
  else drawSelectedOperation(panel, context, state.selected.number);
}

function drawSelectedBuffer(panel, context, buffer) {
  const { model, colors } = panel.page;
  outlineBuffer(panel, context, buffer, colors.accent, 2);
  const { residencies } = panel.plan;
  for (const number of model.accessesOf[buffer]) {
    const served = panel.plan.served[number];
    const picture = panel.pictures.find(({ space }) => space === residencies.space[served]);
    const x = middleOf(panel, model.accessTime[number]);
    if (picture === undefined || x < panel.left || x > panel.right) continue;
    const toY = panel.toY(picture);
    const isWrite = model.accesses.kind[number] !== "read";
    const y = toY(residencies.offset[served] + (isWrite ? model.buffers.size[buffer] : 0));
    if (y < picture.top || y > picture.bottom + 6) continue;
    drawArrow(context, x, y, isWrite, colors.accent);
  }
  for (const i of panel.plan.copiesOf[buffer]) outlineCopy(panel, context, i, colors.accent);
  const lane = panel.lanes.find(({ kind }) => kind === "operations");
  for (const number of model.accessesOf[buffer]) outlineOperation(panel, context, lane, model.accessTime[number], colors.accent);
}

/** Draws a small triangle: a read points out of the rectangle at its foot, a write into it at its head. */
function drawArrow(context, x, y, isWrite, color) {
  context.fillStyle = color;
  context.beginPath();
  if (isWrite) {
    context.moveTo(x - 3.5, y - 6);
    context.lineTo(x + 3.5, y - 6);
    context.lineTo(x, y);
  } else {
    context.moveTo(x - 3.5, y);
    context.lineTo(x + 3.5, y);
    context.lineTo(x, y + 6);
  }
  context.fill();
}

function drawSelectedOperation(panel, context, t) {
  const { model, state, colors } = panel.page;
  const [from, to] = [t, t + 1].map((time) => panel.toX(model.at(panel.plan, state.axis, time)));
  band(panel, context, from, to, colors.accent, 0.16);
  for (let number = model.accesses.first[t]; number < model.accesses.first[t + 1]; number += 1) {
    outlineResidency(panel, context, panel.plan.served[number], colors.accent, 2);
  }
  outlineOperation(panel, context, panel.lanes.find(({ kind }) => kind === "operations"), t, colors.accent);
}

function band(panel, context, from, to, color, alpha) {
  const [left, right] = [Math.max(from, panel.left), Math.min(Math.max(to, from + 1), panel.right)];
  if (right <= left) return;
  context.fillStyle = color;
  context.globalAlpha = alpha;
  context.fillRect(left, panel.pictures[0].top, right - left, panel.axisTop - panel.pictures[0].top);
  context.globalAlpha = 1;
}

function outlineBuffer(panel, context, buffer, color, width) {
  for (const i of panel.plan.residenciesOf[buffer]) outlineResidency(panel, context, i, color, width);
}

function outlineResidency(panel, context, i, color, width) {
  const { model, state } = panel.page;
  const { residencies } = panel.plan;
  const picture = panel.pictures.find(({ space }) => space === residencies.space[i]);
  if (picture === undefined) return;
  const toY = panel.toY(picture);
  const x0 = Math.max(panel.toX(model.at(panel.plan, state.axis, residencies.start[i])), panel.left - 3);
  const x1 = Math.min(panel.toX(model.at(panel.plan, state.axis, residencies.end[i])), panel.right + 3);
  const y0 = Math.max(toY(residencies.offset[i] + model.buffers.size[residencies.buffer[i]]), picture.top - 3);
  const y1 = Math.min(toY(residencies.offset[i]), picture.bottom + 3);
  if (x1 <= x0 || y1 <= y0) return;
  context.strokeStyle = color;
  context.lineWidth = width;
  // What is thin is framed from outside, so that it stays visible.
  const [w, h] = [Math.max(x1 - x0, 3), Math.max(y1 - y0, 3)];
  context.strokeRect(x0 - (w - (x1 - x0)) / 2, y0 - (h - (y1 - y0)) / 2, w, h);
}

function drawHover(panel, context) {
  const { hover, colors, model, state } = panel.page;
  if (hover === null) return;
  const isHere = hover.panel === panel;
  if (hover.t !== undefined) {
    // The same operation in every panel; the line of the pointer only in its own.
    const [from, to] = [hover.t, hover.t + 1].map((t) => panel.toX(model.at(panel.plan, state.axis, t)));
    band(panel, context, from, to, colors.ink, 0.07);
  }
  if (hover.kind === "buffer") outlineBuffer(panel, context, hover.number, colors.ink, 1.4);
  if (hover.kind === "copy") {
    outlineBuffer(panel, context, hover.buffer, colors.ink, 1.4);
    if (isHere) outlineCopy(panel, context, hover.number, colors.ink);
  }
  if (hover.kind === "operation") {
    for (let n = model.accesses.first[hover.number]; n < model.accesses.first[hover.number + 1]; n += 1) {
      outlineResidency(panel, context, panel.plan.served[n], colors.ink, 1.4);
    }
  }
  if (hover.box && isHere) {
    const [x0, y0, x1, y1] = hover.box;
    context.strokeStyle = colors.accent;
    context.lineWidth = 1;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
}
