// What is shown and chosen. All of it stands in the fragment of the page's address, so that a link reproduces it.

// The parts of the state, each a property of it.
const KEYS_OF_STATE = ["memories", "plans", "axis", "x", "y", "selected", "query", "hidden", "group", "least", "moment", "differing", "sort", "theme"];

class State {
  constructor(model) {
    this.model = model;
    this.listener = () => {};
    this.reset();
  }

  reset() {
    const fast = this.model.spaces.map((_, space) => space).filter((space) => space > 0 && this._occurs(space)).reverse();
    // What does not fit is looked at first.
    const over = this.model.spaces.map((_, space) => space).filter((space) => this._overflows(space));
    this.memories = over.length ? over : fast.length ? fast : [0];
    this.plans = "all";
    this.axis = "time";
    this.x = [0, 1]; // shares of the whole axis
    this.y = this.model.spaces.map(() => [0, 1]); // shares of the height, per memory
    this.selected = null; // { kind: "buffer" | "operation", number }
    this.query = "";
    this.hidden = new Set(); // kinds
    this.group = "";
    this.least = 0; // bytes
    this.moment = null; // only what is in memory at this time
    this.differing = false; // only what the plans place differently
    this.sort = { column: "cost", descending: true };
    this.theme = "";
  }

  _occurs(space) {
    return this.model.plans.some((plan) => plan.inSpace[space].length);
  }

  _overflows(space) {
    return this.model.plans.some((plan) => plan.usage[space].peak > this.model.spaces[space].capacity);
  }

  get shownPlans() {
    const { plans } = this.model;
    return this.plans === "all" ? plans : [plans[this.plans]];
  }

  /** Applies changes and tells the listener which keys changed. */
  set(changes) {
    Object.assign(this, changes);
    this.listener(new Set(Object.keys(changes)));
  }

  select(kind, number) {
    this.set({ selected: kind === null ? null : { kind, number } });
  }

  /** Changes the axis so that the same operations stay in view. */
  switchAxis() {
    const { model } = this;
    const next = this.axis === "time" ? "operations" : "time";
    const plan = this.shownPlans.at(-1);
    const x = this.x.map((share) => {
      if (share === 0 || share === 1) return share;
      const position = share * model.extent[this.axis];
      const t = model.operationAt(plan, this.axis, position);
      const [left, right] = [model.at(plan, this.axis, t), model.at(plan, this.axis, t + 1)];
      const within = right > left ? Math.min((position - left) / (right - left), 1) : 0;
      const [from, to] = [model.at(plan, next, t), model.at(plan, next, t + 1)];
      return (from + within * (to - from)) / model.extent[next];
    });
    this.set({ axis: next, x: clampWindow(x[0], x[1], MIN_X) });
  }

  /** Returns the fragment that `read` reads back. */
  fragment() {
    const fresh = new State(this.model);
    const parts = new URLSearchParams();
    const put = (key, value, usual) => value !== usual && parts.set(key, value);
    const shares = (pair) => pair.map((value) => value.toPrecision(7) / 1).join("-");
    put("memory", this.memories.join("."), fresh.memories.join("."));
    put("plan", `${this.plans}`, "all");
    put("axis", this.axis, "time");
    put("x", shares(this.x), "0-1");
    this.y.forEach((pair, space) => put(`y${space}`, shares(pair), "0-1"));
    put("select", this.selected ? `${this.selected.kind}.${this.selected.number}` : "", "");
    put("search", this.query, "");
    put("hide", [...this.hidden].sort().join("."), "");
    put("group", this.group, "");
    put("least", `${this.least}`, "0");
    put("at", this.moment === null ? "" : `${this.moment}`, "");
    put("differing", this.differing ? "1" : "", "");
    put("sort", `${this.sort.descending ? "-" : ""}${this.sort.column}`, "-cost");
    put("theme", this.theme, "");
    return `${parts}`;
  }

  /** Takes the state from a fragment. What does not fit this report is left as it is at first. */
  read(fragment) {
    const parts = new URLSearchParams(fragment);
    const { model } = this;
    const integers = (text, count) =>
      text.split(".").map(Number).filter((value) => Number.isInteger(value) && value >= 0 && value < count);
    const window = (text, least) => {
      const [from, to] = (text ?? "").split(/(?<=\d)-/).map(Number);
      return from >= 0 && to <= 1 && from < to ? clampWindow(from, to, least) : [0, 1];
    };
    this.reset();
    const memories = integers(parts.get("memory") ?? "x", model.spaces.length);
    if (memories.length) this.memories = memories;
    const [plan] = integers(parts.get("plan") ?? "x", model.plans.length);
    if (plan !== undefined) this.plans = plan;
    if (parts.get("axis") === "operations") this.axis = "operations";
    this.x = window(parts.get("x"), MIN_X);
    this.y = model.spaces.map((_, space) => window(parts.get(`y${space}`), MIN_Y));
    const [kind, chosen] = (parts.get("select") ?? "").split(".");
    const counts = { buffer: model.count, operation: model.end };
    if (kind in counts && integers(chosen ?? "", counts[kind]).length && chosen) this.selected = { kind, number: Number(chosen) };
    this.query = parts.get("search") ?? "";
    this.hidden = new Set(parts.has("hide") ? integers(parts.get("hide"), model.kinds.length) : []);
    if (model.buffers.group.includes(parts.get("group"))) this.group = parts.get("group");
    this.least = Math.max(0, Number(parts.get("least")) || 0);
    const [moment] = integers(parts.get("at") ?? "x", model.end + 1);
    if (moment !== undefined) this.moment = moment;
    this.differing = parts.get("differing") === "1";
    const sort = parts.get("sort") ?? "-cost";
    if (COLUMNS.some(({ key }) => key === sort.replace("-", ""))) {
      this.sort = { column: sort.replace("-", ""), descending: sort.startsWith("-") };
    }
    if (["light", "dark"].includes(parts.get("theme"))) this.theme = parts.get("theme");
  }

  /** Returns `[count]` 1 for each buffer that passes the filters. */
  matches() {
    const { model } = this;
    const { kind, size, group } = model.buffers;
    const words = this.query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = new Uint8Array(model.count);
    const here = this.moment === null && !this.differing ? null : this._here();
    for (let buffer = 0; buffer < model.count; buffer += 1) {
      if (this.hidden.has(kind[buffer]) || size[buffer] < this.least) continue;
      if (this.group && group[buffer] !== this.group) continue;
      if (here && !here[buffer]) continue;
      if (words.length && !words.every((word) => model.haystack(buffer).includes(word))) continue;
      found[buffer] = 1;
    }
    return found;
  }

  /** Returns `[count]` 1 for each buffer with a residency in what is shown, at the moment, that differs, if those are asked for. */
  _here() {
    const here = new Uint8Array(this.model.count);
    for (const { residencies } of this.shownPlans) {
      for (let i = 0; i < residencies.buffer.length; i += 1) {
        const isThen = this.moment === null || (residencies.start[i] <= this.moment && this.moment < residencies.end[i]);
        const isShown = this.memories.includes(residencies.space[i]);
        if (isThen && isShown && (!this.differing || residencies.differs[i])) here[residencies.buffer[i]] = 1;
      }
    }
    return here;
  }

  get isFiltered() {
    return Boolean(this.query || this.hidden.size || this.group || this.least || this.moment !== null || this.differing);
  }
}

// The smallest parts of the axis and of a memory that can be zoomed to.
const MIN_X = 1e-7;
const MIN_Y = 1e-5;

/** Returns the window moved and sized so that it lies within `[0, 1]` and is no smaller than `least`. */
function clampWindow(from, to, least) {
  const width = Math.min(Math.max(to - from, least), 1);
  const start = Math.min(Math.max((from + to - width) / 2, 0), 1 - width);
  return [start, start + width];
}
