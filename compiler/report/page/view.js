// A panel per plan: a canvas for the picture, one above it for what the pointer is at and what is selected.
//
//     gutter │ memory, the first that is shown
//            │ memory, the second
//            │ lanes: loops, operations, copies, waits
//            │ ticks of time

const GUTTER = 96;
const RIGHT = 10;
const TITLE = 20; // above each of several memories
const LANE = 18;
const AXIS = 20;
const FONT = '11px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif';

/** The colors of the theme, as the style sheet states them. */
function themeColors(model) {
  const probe = document.createElement("span");
  document.body.append(probe);
  const read = (value) => {
    probe.style.color = value;
    return getComputedStyle(probe).color;
  };
  const names = ["ink", "muted", "grid", "canvas", "reserved", "stall", "accent", "dim", "lane", "lane-2", "differs", "on-light", "on-dark"];
  const colors = Object.fromEntries(names.map((name) => [name, read(`var(--${name})`)]));
  colors.isDark = read("var(--is-dark)") === "rgb(0, 0, 0)";
  const ground = channels(colors.canvas);
  colors.buckets = model.kinds.flatMap(({ color }) => {
    const own = channels(read(color));
    return Array.from({ length: TINTS }, (_, tint) => mixed(own, ground, (0.34 * tint) / TINTS));
  });
  colors.pixels = colors.buckets.map(toPixel);
  colors.copies = ["var(--copy-0)", "var(--copy-1)", "var(--copy-2)", "var(--copy-3)"].map(read);
  probe.remove();
  return colors;
}

function channels(color) {
  return color.match(/[\d.]+/g).slice(0, 3).map(Number);
}

function mixed(color, other, part) {
  return `rgb(${color.map((value, i) => Math.round(value * (1 - part) + other[i] * part)).join(",")})`;
}

/** Returns a color as a number of four bytes, in the order of an `ImageData`. */
function toPixel(color) {
  return new Uint32Array(Uint8Array.of(...channels(color), 255).buffer)[0];
}

class Panel {
  constructor(page, plan) {
    this.page = page;
    this.plan = plan;
    this.element = document.getElementById("panel-template").content.firstElementChild.cloneNode(true);
    [this.base, this.overlay] = this.element.querySelectorAll("canvas");
    this.stage = this.element.querySelector(".stage");
    this.scratch = document.createElement("canvas");
    this.drawn = 0;
  }

  /** Fits the canvases to the room that the panel has. */
  resize() {
    const { clientWidth, clientHeight } = this.stage;
    const ratio = globalThis.devicePixelRatio || 1;
    for (const canvas of [this.base, this.overlay, this.scratch]) {
      const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    }
    const { width, height } = this.base;
    if (this.image?.width !== width || this.image.height !== height) {
      this.image = new ImageData(Math.max(width, 1), Math.max(height, 1));
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.width = clientWidth;
    this.height = clientHeight;
    this.ratio = ratio;
    this._layOut();
  }

  _layOut() {
    const { state, model } = this.page;
    this.left = GUTTER;
    this.right = Math.max(this.width - RIGHT, GUTTER + 10);
    this.lanes = [];
    if (model.loops.length) this.lanes.push({ kind: "loops", label: "loops" });
    this.lanes.push({ kind: "operations", label: "operations" });
    for (const link of model.usedLinks) {
      const [source, destination] = model.links[link].map((space) => model.spaces[space].name);
      this.lanes.push({ kind: "copies", link, label: `${source} → ${destination}` });
    }
    if (model.hasWaits) this.lanes.push({ kind: "waits", label: "waits" });
    const lanesTop = this.height - AXIS - LANE * this.lanes.length;
    this.lanes.forEach((lane, i) => Object.assign(lane, { top: lanesTop + i * LANE, bottom: lanesTop + (i + 1) * LANE }));
    const title = state.memories.length > 1 ? TITLE : 6;
    const room = lanesTop - 8 - title * state.memories.length;
    // The slow memory needs less of the picture: nothing competes for it.
    const shares = state.memories.map((space) => (space ? 1.5 : 1));
    const total = shares.reduce((a, b) => a + b, 0);
    let top = title;
    this.pictures = state.memories.map((space, i) => {
      const height = Math.max((room * shares[i]) / total, 20);
      const picture = { space, top, bottom: top + height };
      top += height + title;
      return picture;
    });
    this.axisTop = lanesTop + LANE * this.lanes.length;
    this._aim();
  }

  /** Takes over the part of the axis that is in view: positions at the edges, and the function from positions to pixels. */
  _aim() {
    const { state, model } = this.page;
    this.window = state.x.map((share) => share * model.extent[state.axis]);
    const [from, to] = this.window;
    const { left } = this;
    const scale = (this.right - left) / (to - from);
    this.toX = (position) => left + (position - from) * scale;
  }

  toPosition(x) {
    const [from, to] = this.window;
    return from + ((x - this.left) / (this.right - this.left)) * (to - from);
  }

  /** Returns the offsets, in bytes, at the lower and the upper edge of a memory's picture. */
  offsets(space) {
    return this.page.state.y[space].map((share) => share * this.page.model.spaces[space].ceiling);
  }

  toY(picture) {
    const [low, high] = this.offsets(picture.space);
    const scale = (picture.bottom - picture.top) / (high - low);
    return (offset) => picture.bottom - (offset - low) * scale;
  }

  begin(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = FONT;
    return context;
  }

  /** Draws the picture; the page calls it once a frame at most. */
  draw() {
    this._aim();
    const context = this.begin(this.base);
    this.drawn = 0;
    for (const picture of this.pictures) drawMemory(this, context, picture);
    drawLanes(this, context);
    drawTimeAxis(this, context);
  }

  /** Draws what was painted into `pixels`: the pixels of the whole canvas, row by row. */
  putPixels(context) {
    this.scratch.getContext("2d").putImageData(this.image, 0, 0);
    context.save();
    context.resetTransform();
    context.drawImage(this.scratch, 0, 0);
    context.restore();
  }

  drawOverlay() {
    const context = this.begin(this.overlay);
    drawSelection(this, context);
    drawHover(this, context);
  }

  /** Returns what is at a point: `{ kind, number, … }`, or null. */
  hit(x, y) {
    if (x < this.left || x > this.right) return null;
    for (const picture of this.pictures) {
      if (y >= picture.top && y <= picture.bottom) return this._hitMemory(picture, x, y);
    }
    const lane = this.lanes.find(({ top, bottom }) => y >= top && y < bottom);
    return lane ? hitLane(this, lane, x) : null;
  }

  _hitMemory(picture, x, y) {
    const { model, state, matches } = this.page;
    const { residencies, inSpace } = this.plan;
    const { axis } = state;
    const position = this.toPosition(x);
    const t = model.operationAt(this.plan, axis, position);
    const [low, high] = this.offsets(picture.space);
    const offset = low + ((picture.bottom - y) / (picture.bottom - picture.top)) * (high - low);
    const hit = { kind: "place", picture, t, offset, position };
    // Thin rectangles can be hit within a pixel or so.
    const slack = ((high - low) / (picture.bottom - picture.top)) * 1.5;
    let best = Infinity;
    for (const i of inSpace[picture.space]) {
      if (t < residencies.start[i] || t >= residencies.end[i]) continue;
      const buffer = residencies.buffer[i];
      const below = residencies.offset[i] - offset;
      const above = offset - (residencies.offset[i] + model.buffers.size[buffer]);
      const distance = Math.max(below, above, 0) + (matches[buffer] ? 0 : slack / 2);
      if (distance <= slack && distance < best) {
        best = distance;
        Object.assign(hit, { kind: "buffer", number: buffer, residency: i });
      }
    }
    return hit;
  }
}
