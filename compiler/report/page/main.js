// The page: it holds model, state and views together, and draws once a frame at most.

class Page {
  constructor(model) {
    this.model = model;
    this.state = new State(model);
    this.state.read(location.hash.slice(1));
    this.hover = null;
    this.matches = this.state.matches();
    this.stale = { pictures: true, overlay: true };
    this.frame = 0;
    this.stats = { frames: 0, pictures: 0, rectangles: 0 };
    fillHead(this);
    fillTools(this);
    this.table = new Table(this);
    this.panels = model.plans.map((plan) => new Panel(this, plan));
    document.getElementById("panels").append(...this.panels.map(({ element }) => element));
    this.overview = new Overview(this);
    this.colors = themeColors(model);
    for (const panel of this.panels) listenToPanel(this, panel);
    listenToTools(this);
    this.state.listener = (keys) => this._changed(keys);
    this._changed(new Set(KEYS_OF_STATE));
    new ResizeObserver(() => this._resized()).observe(document.getElementById("panels"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.state.set({ theme: this.state.theme }));
    addEventListener("hashchange", () => this._readFragment());
    this.table.scrollToSelection();
  }

  get shownPanels() {
    const shown = this.state.shownPlans;
    return this.panels.filter(({ plan }) => shown.includes(plan));
  }

  /** Brings up to date what shows the parts of the state that changed. */
  _changed(keys) {
    const has = (...names) => names.some((name) => keys.has(name));
    if (has("plans", "memories")) this._arrange();
    const filters = has("query", "hidden", "group", "least", "moment", "differing") || (has("plans", "memories") && this.state.isFiltered);
    if (filters) this.matches = this.state.matches();
    if (filters || has("plans", "memories", "axis", "theme")) updateTools(this);
    if (has("theme")) this.colors = themeColors(this.model);
    if (filters || has("sort", "selected")) this.table.update();
    if (has("selected") || (has("memories", "plans") && this.state.selected === null)) showDetails(this);
    this.redraw(filters || has("plans", "memories", "axis", "x", "y", "theme"));
    clearTimeout(this.writing);
    this.writing = setTimeout(() => this.writeFragment(), 200);
  }

  _arrange() {
    const shown = this.state.shownPlans;
    for (const panel of this.panels) {
      panel.element.hidden = !shown.includes(panel.plan);
      const names = this.state.memories.map((space) => this.model.spaces[space].name).join(", ");
      panel.element.querySelector("h2").textContent = `${panel.plan.label} · ${names}`;
      panel.element.querySelector(".facts").textContent = panelFacts(this, panel.plan);
      panel.base.setAttribute("aria-label", `${names} over time, ${panel.plan.label}. ${panelFacts(this, panel.plan)}`);
    }
    this._resized();
  }

  _resized() {
    for (const panel of this.shownPanels) panel.resize();
    this.redraw(true);
  }

  /** Draws at the next frame, once however often it is asked for until then. */
  redraw(pictures) {
    this.stale = { pictures: this.stale.pictures || pictures, overlay: true };
    this.frame ||= requestAnimationFrame(() => this._draw());
  }

  _draw() {
    const { pictures } = this.stale;
    this.frame = 0;
    this.stale = { pictures: false, overlay: false };
    this.stats.frames += 1;
    for (const panel of this.shownPanels) {
      if (pictures) panel.draw();
      panel.drawOverlay();
    }
    if (!pictures) return;
    this.overview.draw();
    this.stats.pictures += 1;
    this.stats.rectangles = this.shownPanels.reduce((sum, { drawn }) => sum + drawn, 0);
  }

  setHover(hover, event) {
    const isSame = hover === null && this.hover === null;
    this.hover = hover;
    showTip(this, event.clientX, event.clientY);
    if (!isSame) this.redraw(false);
  }

  // ---- moving about

  zoom(factor, at) {
    const [from, to] = this.state.x;
    const fixed = from + at * (to - from);
    const width = Math.min(Math.max((to - from) * factor, MIN_X), 1);
    const start = Math.min(Math.max(fixed - at * width, 0), 1 - width);
    this.state.set({ x: [start, start + width] });
  }

  zoomOffsets(panel, factor, y) {
    const picture = panel.pictures.find(({ top, bottom }) => y >= top && y <= bottom);
    if (picture === undefined) return;
    const [low, high] = this.state.y[picture.space];
    const at = (picture.bottom - y) / (picture.bottom - picture.top);
    const width = Math.min(Math.max((high - low) * factor, MIN_Y), 1);
    const start = Math.min(Math.max(low + at * (high - low) - at * width, 0), 1 - width);
    this.state.set({ y: this.state.y.with(picture.space, [start, start + width]) });
  }

  pan(windows) {
    const [from, to] = this.state.x;
    this.state.set({ x: shifted(this.state.x, windows * (to - from)) });
  }

  showAll() {
    this.state.set({ x: [0, 1], y: this.state.y.map(() => [0, 1]) });
  }

  /** Selects, and moves the window if nothing of the selection is in it. */
  reveal(kind, number) {
    this.state.select(kind, number);
    this.table.scrollToSelection();
    const [from, to] = this.state.x;
    const parts = this._selectedParts();
    if (parts.length && !parts.some(([start, end]) => start < to && end > from)) {
      const middle = (parts[0][0] + parts[0][1]) / 2;
      this.state.set({ x: shifted([middle - (to - from) / 2, middle + (to - from) / 2].map((x) => Math.min(Math.max(x, 0), 1)), 0) });
    }
  }

  zoomToSelection() {
    const parts = this._selectedParts();
    if (!parts.length) return;
    const from = Math.min(...parts.map(([start]) => start));
    const to = Math.max(...parts.map(([, end]) => end));
    const margin = Math.max((to - from) * 0.15, MIN_X);
    this.state.set({ x: clampWindow(from - margin, to + margin, MIN_X) });
  }

  /** Returns where the selection lies, as `[start, end]` shares of the axis: of a buffer its residencies in the fast
   * memories that are shown, else in the slow one, else its accesses. */
  _selectedParts() {
    const { model, state } = this;
    if (state.selected === null) return [];
    const { kind, number } = state.selected;
    const part = (plan, start, end) => [start, end].map((t) => model.at(plan, state.axis, t) / model.extent[state.axis]);
    if (kind === "operation") return state.shownPlans.map((plan) => part(plan, number, number + 1));
    const residenciesIn = (isWanted) =>
      state.shownPlans.flatMap((plan) => {
        const { residencies } = plan;
        const found = plan.residenciesOf[number].filter((i) => state.memories.includes(residencies.space[i]) && isWanted(residencies.space[i]));
        return found.map((i) => part(plan, residencies.start[i], residencies.end[i]));
      });
    const fast = residenciesIn((space) => space > 0);
    if (fast.length) return fast;
    const slow = residenciesIn(() => true);
    if (slow.length) return slow;
    const times = model.accessesOf[number].map((access) => model.accessTime[access]);
    return state.shownPlans.flatMap((plan) => times.map((t) => part(plan, t, t + 1)));
  }

  // ---- the link

  writeFragment() {
    this.written = this.state.fragment();
    history.replaceState(null, "", this.written ? `#${this.written}` : location.pathname + location.search);
  }

  _readFragment() {
    if (location.hash.slice(1) === this.written) return;
    this.state.read(location.hash.slice(1));
    this._changed(new Set(KEYS_OF_STATE));
    this.table.scrollToSelection();
  }
}

function panelFacts(page, plan) {
  const { memories } = page.state;
  const waits = plan.stalled > 0 ? [`${printSeconds(plan.stalled)} waiting`] : [];
  return [printSeconds(plan.latency), ...waits, ...(memories.length > 1 ? [] : [peakText(page, plan, memories[0])])].join(" · ");
}

function peakText({ model }, plan, space) {
  const { peak, peakTime } = plan.usage[space];
  return `peak ${printBytes(peak)} of ${printBytes(model.spaces[space].capacity)} at ${model.nameOf(peakTime)}`;
}

try {
  // For scripts and tests: what is shown, and how much work it was.
  globalThis.memplanPage = new Page(new Model(await readData()));
} catch (error) {
  document.body.replaceChildren(make("p", "broken", `This browser cannot show the report: ${error.message}`));
  throw error;
}
