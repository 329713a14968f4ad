// The tiles, the tools above the pictures, and the keyboard.

function byId(id) {
  return document.getElementById(id);
}

function fillHead(page) {
  const { model } = page;
  document.title = `${model.program} on ${model.target} · memplan`;
  byId("program").textContent = model.program;
  byId("about").textContent = `on ${model.target} · ${plural(model.end, "operation")} · ${plural(model.count, "buffer")}`;
  byId("tiles").append(...tiles(model));
}

/** Returns one tile per figure of the plan, beside that of the other plan. */
function tiles(model) {
  const subject = model.plans.at(-1);
  const other = model.plans.length > 1 ? model.plans[0] : null;
  const beside = (text) => (other ? `${text(other)} in ${other.label}` : "");
  const figures = [
    ["Latency", printSeconds(subject.latency), "", other && other.latency > 0 ? comparison(subject.latency, other.latency, other.label) : subject.label],
    ["Above the bound", printPercent(subject.gap), "", `no plan beats ${printSeconds(model.bound)}`],
    ["Waiting for copies", printSeconds(subject.stalled), "", beside((plan) => printSeconds(plan.stalled))],
    ["Copied", printBytes(subject.copiedBytes), `in ${plural(Math.round(subject.copyCount), "copy", "copies")}`, beside((plan) => printBytes(plan.copiedBytes))],
    ...model.spaces.map(({ name, capacity }, space) => {
      if (!model.plans.some((plan) => plan.usage[space].peak > 0)) return null;
      return [`Peak of ${name}`, printBytes(subject.usage[space].peak), `of ${printBytes(capacity)}`, beside((plan) => printBytes(plan.usage[space].peak))];
    }),
  ];
  return figures.filter(Boolean).map(([name, value, unit, note]) => {
    const tile = make("div", "tile", make("div", "name", name), make("div", "value", value, make("small", "", unit)), make("div", "note", note));
    tile.title = [name, `${value} ${unit}`.trim(), tile.lastChild.textContent].join("\n");
    return tile;
  });
}

function comparison(value, base, text) {
  const ratio = value / base - 1;
  const words = Math.abs(ratio) < 5e-4 ? "as much as" : `${(100 * Math.abs(ratio)).toFixed(1)} % ${ratio < 0 ? "less than" : "more than"}`;
  return [make("span", ratio < -5e-4 ? "better" : ratio > 5e-4 ? "worse" : "", words), ` ${text}`];
}

function fillTools(page) {
  const { model, state } = page;
  byId("memories").append(...model.spaces.map(({ name }, space) => {
    const button = make("button", "", name);
    button.title = `Show or hide this memory (${space + 1})`;
    button.addEventListener("click", () => toggleMemory(page, space));
    button.hidden = !model.plans.some((plan) => plan.inSpace[space].length);
    return button;
  }));
  if (model.plans.length > 1) {
    byId("plans").append(...["all", ...model.plans.keys()].map((choice) => {
      const button = make("button", "", choice === "all" ? "Both plans" : model.plans[choice].label);
      button.addEventListener("click", () => state.set({ plans: choice }));
      button.dataset.plan = choice;
      return button;
    }));
  }
  byId("differing").hidden = model.plans.length < 2;
  byId("group").append(...groupOptions(model));
  byId("group").hidden = byId("group").length < 3;
  byId("least").append(...sizeOptions(model));
  fillLegend(page);
}

function option(value, text) {
  const element = make("option", "", text);
  element.value = value;
  return element;
}

// A list of more would neither be read nor open quickly.
const MOST_GROUPS = 300;

/** Returns the groups, those that take most bytes first; the search finds what is not among the first. */
function groupOptions(model) {
  const groups = new Map();
  model.buffers.group.forEach((group, buffer) => {
    if (!group) return;
    const entry = groups.get(group) ?? { count: 0, bytes: 0 };
    entry.count += 1;
    entry.bytes += model.buffers.size[buffer];
    groups.set(group, entry);
  });
  const sorted = [...groups].sort(([, a], [, b]) => b.bytes - a.bytes).slice(0, MOST_GROUPS);
  return [option("", "All groups"), ...sorted.map(([group, { count, bytes }]) => option(group, `${group.slice(0, 80)} × ${count}, ${printBytes(bytes)}`))];
}

function sizeOptions(model) {
  const largest = Math.max(...model.buffers.size);
  const limits = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30].map((power) => 2 ** power).filter((limit) => limit <= largest);
  return [option("0", "Any size"), ...limits.map((limit) => option(`${limit}`, `≥ ${printBytes(limit)}`))];
}

/** Fills the legend with the kinds and signs that occur. */
function fillLegend(page) {
  const { model, state } = page;
  const counts = model.kinds.map((_, kind) => model.buffers.kind.filter((each) => each === kind).length);
  byId("kinds").append(...model.kinds.map(({ label, color }, kind) => {
    const mark = make("span", "swatch");
    mark.style.background = color;
    const button = make("button", "", mark, `${label} (${withCommas(counts[kind])})`);
    button.title = "Show or hide";
    button.hidden = !counts[kind];
    button.addEventListener("click", () => {
      const hidden = new Set(state.hidden);
      if (!hidden.delete(kind)) hidden.add(kind);
      state.set({ hidden });
    });
    return button;
  }));
  const usages = model.plans.flatMap((plan) => plan.usage);
  const signs = [
    ["line", "occupied in all", true],
    ["reserved", "kept by operations for themselves", usages.some(({ reserved }) => reserved.some((bytes) => bytes > 0))],
    ["capacity", "capacity", model.spaces.some(({ capacity, ceiling }) => capacity <= ceiling)],
    ["differs", "placed elsewhere by the other plan", model.plans.some((plan) => plan.residencies.differs.some(Boolean))],
  ];
  byId("signs").append(...signs.filter(([, , occurs]) => occurs).map(([name, label]) => make("span", "", make("span", `sign ${name}`), label)));
}

function toggleMemory(page, space) {
  const { memories } = page.state;
  const next = memories.includes(space) ? memories.filter((other) => other !== space) : [...memories, space];
  // Fast memories stand above the slow one.
  if (next.length) page.state.set({ memories: next.sort((a, b) => b - a) });
}

/** Shows the state in the tools. */
function updateTools(page) {
  const { model, state, matches } = page;
  const press = (button, isPressed) => button.setAttribute("aria-pressed", `${isPressed}`);
  [...byId("memories").children].forEach((button, space) => press(button, state.memories.includes(space)));
  for (const button of byId("plans").children) press(button, button.dataset.plan === `${state.plans}`);
  for (const button of byId("axis").children) press(button, button.dataset.axis === state.axis);
  [...byId("kinds").children].forEach((button, kind) => press(button, !state.hidden.has(kind)));
  press(byId("at-peak"), state.moment !== null);
  byId("at-peak").textContent = state.moment === null || state.moment === peakTime(page) ? "At the peak" : `At t=${state.moment}`;
  press(byId("differing"), state.differing);
  if (document.activeElement !== byId("search")) byId("search").value = state.query;
  byId("group").value = state.group;
  if (byId("group").selectedIndex < 0) {
    byId("group").append(option(state.group, state.group.slice(0, 80)));
    byId("group").value = state.group;
  }
  byId("least").value = `${state.least}`;
  byId("clear").hidden = !state.isFiltered;
  let [count, bytes] = [0, 0];
  for (let buffer = 0; buffer < model.count; buffer += 1) {
    count += matches[buffer];
    bytes += matches[buffer] * model.buffers.size[buffer];
  }
  byId("found").textContent = `${state.isFiltered ? `${withCommas(count)} of ` : ""}${plural(model.count, "buffer")}, ${printBytes(bytes)}`;
  const { dataset } = document.documentElement;
  if (state.theme) dataset.theme = state.theme;
  else delete dataset.theme;
  byId("theme").textContent = isDark(state) ? "Light" : "Dark";
}

function isDark(state) {
  return state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Returns the time of the peak of the first memory that is shown, in the last plan that is shown. */
function peakTime(page) {
  return page.state.shownPlans.at(-1).usage[page.state.memories[0]].peakTime;
}

function listenToTools(page) {
  const { state } = page;
  for (const button of byId("axis").children) {
    button.addEventListener("click", () => button.dataset.axis !== state.axis && state.switchAxis());
  }
  byId("search").addEventListener("input", (event) => state.set({ query: event.target.value }));
  byId("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") page.table.step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") event.target.blur();
  });
  byId("group").addEventListener("change", (event) => state.set({ group: event.target.value }));
  byId("least").addEventListener("change", (event) => state.set({ least: Number(event.target.value) }));
  byId("at-peak").addEventListener("click", () => toggleMoment(page));
  byId("differing").addEventListener("click", () => state.set({ differing: !state.differing }));
  byId("clear").addEventListener("click", () => clearFilters(state));
  byId("theme").addEventListener("click", () => switchTheme(state));
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("copy-link").addEventListener("click", () => copyLink(page));
  document.addEventListener("keydown", (event) => pressKey(page, event));
}

function toggleMoment(page) {
  page.state.set({ moment: page.state.moment === null ? peakTime(page) : null });
}

function clearFilters(state) {
  byId("search").value = "";
  state.set({ query: "", hidden: new Set(), group: "", least: 0, moment: null, differing: false });
}

function switchTheme(state) {
  state.set({ theme: isDark(state) ? "light" : "dark" });
}

async function copyLink(page) {
  page.writeFragment();
  const button = byId("copy-link");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "It is in the address bar";
  }
  setTimeout(() => (button.textContent = "Copy link"), 1600);
}

const KEYS = {
  ArrowLeft: (page) => page.pan(-0.15),
  ArrowRight: (page) => page.pan(0.15),
  a: (page) => page.pan(-0.15),
  d: (page) => page.pan(0.15),
  v: (page) => page.state.set({ differing: !page.state.differing && page.model.plans.length > 1 }),
  "+": (page) => page.zoom(1 / 1.4, 0.5),
  "=": (page) => page.zoom(1 / 1.4, 0.5),
  "-": (page) => page.zoom(1.4, 0.5),
  w: (page) => page.zoom(1 / 1.4, 0.5),
  s: (page) => page.zoom(1.4, 0.5),
  0: (page) => page.showAll(),
  "/": () => byId("search").select(),
  ArrowDown: (page) => page.table.step(1),
  ArrowUp: (page) => page.table.step(-1),
  n: (page) => page.table.step(1),
  p: (page) => page.table.step(-1),
  f: (page) => page.zoomToSelection(),
  k: (page) => toggleMoment(page),
  x: (page) => page.state.switchAxis(),
  t: (page) => switchTheme(page.state),
  "?": () => byId("keys").showModal(),
  Escape: (page) => (page.state.selected === null ? clearFilters(page.state) : page.state.select(null)),
};

function pressKey(page, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, dialog[open]")) return;
  const space = Number(event.key) - 1;
  const isMemory = /^[1-9]$/.test(event.key) && space < page.model.spaces.length;
  const action = isMemory ? () => toggleMemory(page, space) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action === undefined || (event.key === "Enter" && event.target.closest("button"))) return;
  event.preventDefault();
  action(page);
}
