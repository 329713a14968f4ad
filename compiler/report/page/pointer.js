// Wheel, drag, hover and click on the panels and on the overview.

function listenToPanel(page, panel) {
  const { stage } = panel;
  let drag = null;
  const place = (event) => {
    const { left, top } = stage.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = place(event);
    const unit = event.deltaMode ? 30 : 1;
    const amount = (event.deltaY || event.deltaX) * unit;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) page.pan(((event.deltaX || event.deltaY) * unit) / 900);
    else if (event.altKey) page.zoomOffsets(panel, 1.0016 ** amount, y);
    else page.zoom(1.0016 ** amount, share(panel, x));
  }, { passive: false });

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    drag = { from: place(event), x: page.state.x, y: page.state.y, hasMoved: false, isBox: event.shiftKey };
  });
  stage.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (drag === null) {
      page.setHover(hoverAt(panel, x, y), event);
      return;
    }
    drag.hasMoved ||= Math.hypot(x - drag.from[0], y - drag.from[1]) > 3;
    if (!drag.hasMoved) return;
    if (drag.isBox) page.setHover({ panel, kind: "box", box: [...drag.from, x, y] }, event);
    else move(page, panel, drag, x, y);
    stage.classList.toggle("moving", !drag.isBox);
  });
  const release = (event) => {
    if (drag === null) return;
    const [x, y] = place(event);
    const { hasMoved, isBox, from } = drag;
    drag = null;
    stage.classList.remove("moving");
    if (!hasMoved) choose(page, hoverAt(panel, x, y));
    else if (isBox) zoomToBox(page, panel, from, [x, y]);
    page.setHover(null, event);
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", () => (drag = null));
  stage.addEventListener("pointerleave", (event) => drag === null && page.setHover(null, event));
  stage.addEventListener("dblclick", () => page.zoomToSelection());
}

function hoverAt(panel, x, y) {
  const hit = panel.hit(x, y);
  return hit === null ? null : { ...hit, panel };
}

/** Returns the share of a panel's width at which a pixel is. */
function share(panel, x) {
  return Math.min(Math.max((x - panel.left) / (panel.right - panel.left), 0), 1);
}

/** Selects what was clicked: a copy selects its buffer, the empty picture nothing. */
function choose(page, hit) {
  if (hit === null || hit.kind === "place" || hit.kind === "loop") page.state.select(null);
  else if (hit.kind === "copy") page.state.select("buffer", hit.buffer);
  else if (hit.kind === "wait") page.state.select(hit.number < page.model.end ? "operation" : null, hit.number);
  else page.state.select(hit.kind, hit.number);
  page.table.scrollToSelection();
}

function move(page, panel, drag, x, y) {
  const [from, to] = drag.x;
  const dx = ((drag.from[0] - x) / (panel.right - panel.left)) * (to - from);
  const changes = { x: shifted(drag.x, dx) };
  const picture = panel.pictures.find(({ top, bottom }) => drag.from[1] >= top && drag.from[1] <= bottom);
  if (picture !== undefined) {
    const [low, high] = drag.y[picture.space];
    const dy = ((y - drag.from[1]) / (picture.bottom - picture.top)) * (high - low);
    changes.y = page.state.y.with(picture.space, shifted(drag.y[picture.space], dy));
  }
  page.state.set(changes);
}

/** Returns a window moved within `[0, 1]`. */
function shifted([from, to], by) {
  const allowed = Math.min(Math.max(by, -from), 1 - to);
  return [from + allowed, to + allowed];
}

function zoomToBox(page, panel, [ax, ay], [bx, by]) {
  const { state } = page;
  const shares = [share(panel, Math.min(ax, bx)), share(panel, Math.max(ax, bx))];
  const [from, to] = state.x;
  const changes = { x: clampWindow(...shares.map((part) => from + part * (to - from)), MIN_X) };
  const picture = panel.pictures.find(({ top, bottom }) => ay >= top && ay <= bottom);
  if (picture !== undefined) {
    const [low, high] = state.y[picture.space];
    const height = picture.bottom - picture.top;
    const parts = [(picture.bottom - Math.max(ay, by)) / height, (picture.bottom - Math.min(ay, by)) / height];
    changes.y = state.y.with(picture.space, clampWindow(...parts.map((part) => low + Math.min(Math.max(part, 0), 1) * (high - low)), MIN_Y));
  }
  state.set(changes);
}

// ---- the overview: all of the time, with what is occupied, and the part that the panels show

class Overview {
  constructor(page) {
    this.page = page;
    this.canvas = document.getElementById("overview");
    this._listen();
  }

  draw() {
    const { model, state, colors } = this.page;
    const ratio = globalThis.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const [left, right] = [GUTTER, width - RIGHT + 4];
    const space = state.memories[0];
    const highest = Math.max(...model.plans.map((plan) => plan.usage[space].peak)) || 1;
    for (const plan of state.shownPlans) {
      const isSubject = plan === state.shownPlans.at(-1);
      this._curve(context, plan, plan.usage[space].occupied, left, right, height, highest, isSubject);
    }
    const [from, to] = state.x.map((part) => left + part * (right - left));
    context.fillStyle = colors.ink;
    context.globalAlpha = 0.08;
    context.fillRect(left, 0, from - left, height);
    context.fillRect(to, 0, right - to, height);
    context.globalAlpha = 1;
    context.strokeStyle = colors.accent;
    context.lineWidth = 1.5;
    context.strokeRect(from + 0.5, 0.75, Math.max(to - from - 1, 2), height - 1.5);
    context.fillStyle = colors.muted;
    context.font = FONT;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(fitted(context, model.spaces[space].name, GUTTER - 16), GUTTER - 8, height / 2);
    this.canvas.setAttribute("aria-valuenow", `${Math.round(50 * (state.x[0] + state.x[1]))}`);
    this.canvas.setAttribute("aria-valuetext", `${(100 * state.x[0]).toFixed(1)} % to ${(100 * state.x[1]).toFixed(1)} %`);
  }

  _curve(context, plan, values, left, right, height, highest, isFilled) {
    const { model, state, colors } = this.page;
    const scale = (right - left) / model.extent[state.axis];
    context.beginPath();
    context.moveTo(left, height);
    let t = 0;
    while (t <= model.end) {
      const x = left + model.at(plan, state.axis, t) * scale;
      let level = values[t];
      let next = left + model.at(plan, state.axis, t + 1) * scale;
      for (t += 1; t <= model.end && next < x + 1; t += 1) {
        level = Math.max(level, values[t]);
        next = left + model.at(plan, state.axis, t + 1) * scale;
      }
      const y = height - 2 - (level / highest) * (height - 5);
      context.lineTo(x, y);
      context.lineTo(next, y);
      if (t > model.end) context.lineTo(next, height);
    }
    if (isFilled) {
      context.fillStyle = colors.lane;
      context.fill();
    } else {
      context.strokeStyle = colors.muted;
      context.lineWidth = 1;
      context.stroke();
    }
  }

  _listen() {
    const { page, canvas } = this;
    let drag = null;
    const at = (event) => {
      const { left, width } = canvas.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - left - GUTTER) / (width - GUTTER - RIGHT + 4), 0), 1);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      const position = at(event);
      const [from, to] = page.state.x;
      const slack = 6 / canvas.clientWidth;
      const isAll = to - from > 0.999;
      // At an edge it is moved, inside the window all of it, outside a new window begins.
      if (!isAll && Math.abs(position - from) < slack) drag = { fixed: to };
      else if (!isAll && Math.abs(position - to) < slack) drag = { fixed: from };
      else if (!isAll && position > from && position < to) drag = { moved: position, window: page.state.x };
      else drag = { fixed: position };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag === null) return;
      const position = at(event);
      if (drag.window) page.state.set({ x: shifted(drag.window, position - drag.moved) });
      else if (Math.abs(position - drag.fixed) > 0.002) {
        page.state.set({ x: clampWindow(Math.min(position, drag.fixed), Math.max(position, drag.fixed), MIN_X) });
      }
    });
    canvas.addEventListener("pointerup", () => (drag = null));
    canvas.addEventListener("pointercancel", () => (drag = null));
    canvas.addEventListener("dblclick", () => page.showAll());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [from, to] = page.state.x;
      page.zoom(1.0016 ** event.deltaY, Math.min(Math.max((at(event) - from) / (to - from), 0), 1));
    }, { passive: false });
  }
}
