// The selection, told in full, and the tip at the pointer. Names go into the page as text, never as markup.

const MOST_LINES = 30;

/** Returns a new element with a class and content: texts, elements, or arrays of them; what is null, false or "" is left out. */
function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.flat(Infinity).filter((part) => part || part === 0));
  return element;
}

function facts(...pairs) {
  return make("dl", "", pairs.filter(([, value]) => value).map(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function swatch(page, buffer) {
  const element = make("span", "swatch");
  element.style.background = page.model.kinds[page.model.buffers.kind[buffer]].color;
  return element;
}

function linkTo(page, kind, number, text) {
  const button = make("button", "link", text);
  button.type = "button";
  button.addEventListener("click", () => page.reveal(kind, number));
  return button;
}

/** Returns lines, the first `MOST_LINES` of them, with a button for the rest. */
function lines(items, line) {
  const list = make("div", "", items.slice(0, MOST_LINES).map(line));
  if (items.length > MOST_LINES) {
    const more = make("button", "link", `${withCommas(items.length - MOST_LINES)} more`);
    more.addEventListener("click", () => more.replaceWith(...items.slice(MOST_LINES).map(line)));
    list.append(more);
  }
  return list;
}

function showDetails(page) {
  const { selected } = page.state;
  const element = document.getElementById("details");
  const content = selected === null ? hintDetails(page) : selected.kind === "buffer" ? bufferDetails(page, selected.number) : operationDetails(page, selected.number);
  element.replaceChildren(...content.flat(Infinity).filter(Boolean));
  element.scrollTop = 0;
}

/** Without a selection: what the plans are worth, what fills the memory at its peak, and what was assumed. */
function hintDetails(page) {
  const { model } = page;
  const row = (name, latency, gap, className) =>
    make("div", `line ${className}`, make("span", "what", name), make("span", "side figure", printSeconds(latency)), make("span", "side figure", gap));
  return [
    make("p", "muted", "Click a rectangle, an operation or a copy, or choose a buffer below."),
    make("h3", "", "Plans, and how far they are above the bound"),
    model.mappings.map(({ label, latency, gap }, i) => row(label, latency, printPercent(gap), i === model.mappings.length - 1 ? "strong" : "")),
    row("bound that no plan beats", model.bound, "", "muted"),
    make("p", "muted", model.boundOrigin),
    model.stopped && make("p", "", `The planner was ${model.stopped}.`),
    peakDetails(page),
    model.assumptions.length > 0 && [make("h3", "", "Assumed"), make("ul", "", model.assumptions.map((text) => make("li", "", text)))],
    model.notes.length > 0 && [make("h3", "", "Notes"), make("ul", "", model.notes.map((text) => make("li", "", text)))],
  ];
}

/** What is in the first memory that is shown at its peak, by groups; a click shows one of them. */
function peakDetails(page) {
  const { model, state } = page;
  const plan = state.shownPlans.at(-1);
  const [space] = state.memories;
  const { peak, peakTime, reserved } = plan.usage[space];
  const groups = new Map();
  for (const i of plan.inSpace[space]) {
    if (peakTime < plan.residencies.start[i] || peakTime >= plan.residencies.end[i]) continue;
    const buffer = plan.residencies.buffer[i];
    const name = model.buffers.group[buffer];
    const group = groups.get(name) ?? { count: 0, bytes: 0 };
    groups.set(name, { count: group.count + 1, bytes: group.bytes + model.buffers.size[buffer] });
  }
  if (!groups.size) return null;
  const line = ([name, { count, bytes }]) => {
    const button = make("button", "link", name);
    button.title = name;
    button.addEventListener("click", () => state.set({ group: name, moment: peakTime }));
    return make("div", "line", make("span", "what", button), make("span", "side", count > 1 ? `× ${count}` : ""), make("span", "side figure", printBytes(bytes)));
  };
  const kept = make("div", "line", make("span", "what", `${model.nameOf(peakTime)} itself`), make("span", "side figure", printBytes(reserved[peakTime])));
  return [
    make("h3", "", `At the peak of ${model.spaces[space].name}: ${printBytes(peak)} at ${model.nameOf(peakTime)} (${plan.label})`),
    lines([...groups].sort(([, a], [, b]) => b.bytes - a.bytes), line),
    reserved[peakTime] > 0 && kept,
  ];
}

function bufferDetails(page, buffer) {
  const { model } = page;
  const { buffers } = model;
  const cost = model.cost[buffer];
  const subject = model.plans[model.subject];
  return [
    make("h2", "", swatch(page, buffer), " ", buffers.name[buffer]),
    make("div", "source", buffers.opName[buffer]),
    make("div", "source", buffers.source[buffer]),
    facts(
      ["size", printBytes(buffers.size[buffer]) + (buffers.padding[buffer] ? `, of it ${printBytes(buffers.padding[buffer])} padding` : "")],
      ["shape", buffers.shape[buffer] && make("span", "mono", buffers.shape[buffer])],
      ["kind", model.kinds[buffers.kind[buffer]].label],
      ["alive", `${buffers.why[buffer]} (t=${buffers.start[buffer]} … ${buffers.end[buffer] - 1})`],
      ["group", buffers.group[buffer]],
      ["costs", cost > 0 && `${printSeconds(cost)}, ${((100 * cost) / subject.latency).toFixed(1)} % of the latency`],
      ["saves", buffers.saved[buffer] > 0 && `${printSeconds(buffers.saved[buffer])} against ${model.spaces[0].name}`],
    ),
    selectionButtons(page),
    buffers.reasons[buffer].length > 0 && [
      make("h3", "", `Why it is there (${subject.label})`),
      make("ul", "", buffers.reasons[buffer].map((reason) => make("li", "", reason))),
    ],
    [...model.plans].reverse().map((plan) => placesDetails(page, plan, buffer)),
    accessDetails(page, buffer),
    aliasDetails(page, buffer),
  ];
}

function selectionButtons(page) {
  const zoom = make("button", "", "Zoom to it");
  zoom.addEventListener("click", () => page.zoomToSelection());
  const drop = make("button", "", "Deselect");
  drop.addEventListener("click", () => page.state.select(null));
  return make("div", "buttons", zoom, drop);
}

/** Where a plan has a buffer, and the copies that move it. */
function placesDetails(page, plan, buffer) {
  const { model } = page;
  const { residencies, copies } = plan;
  const places = plan.residenciesOf[buffer].toSorted((a, b) => residencies.start[a] - residencies.start[b]);
  const moves = plan.copiesOf[buffer];
  if (!places.length) return null;
  return [
    make("h3", "", `Places: ${plan.label}`),
    lines(places, (i) => {
      const space = model.spaces[residencies.space[i]].name;
      const last = Math.min(residencies.end[i] - 1, model.end);
      return make("div", "line",
        make("span", "what mono", `${space} at 0x${residencies.offset[i].toString(16)}`),
        residencies.differs[i] ? make("span", "tag differs", "differs") : null,
        make("span", "side", `t=${residencies.start[i]} … ${last}`));
    }),
    moves.length > 0 && lines(moves, (i) => {
      const [from, to] = [copies.source[i], copies.destination[i]].map((residency) => model.spaces[residencies.space[residency]].name);
      const when = copies.link[i] < 0 ? "by the previous run" : `${printSeconds(copies.seconds[i] ?? 0)}, issued t=${copies.start[i]}, awaited t=${copies.done[i]}`;
      return make("div", "line", make("span", "what", `copy ${from} → ${to}`), make("span", "side", when));
    }),
  ];
}

function accessDetails(page, buffer) {
  const { model } = page;
  const numbers = model.accessesOf[buffer];
  return [
    make("h3", "", plural(numbers.length, "access", "accesses")),
    lines(numbers, (number) => accessLine(page, number, linkTo(page, "operation", model.accessTime[number], model.operations.name[model.accessTime[number]]), `t=${model.accessTime[number]}`)),
  ];
}

/** One access: what it does, with what, how much, and from where each plan serves it. */
function accessLine(page, number, link, detail) {
  const { model, state } = page;
  const spaces = state.model.plans.map((plan) => model.spaces[plan.residencies.space[plan.served[number]]].name);
  const differs = new Set(spaces).size > 1;
  const where = differs ? spaces.map((space, i) => `${space} (${i === model.subject ? "here" : "other"})`).reverse().join(", ") : spaces[0];
  return make("div", "line",
    make("span", "side", model.accesses.kind[number]),
    make("span", "what", link),
    make("span", "side", [detail, printBytes(model.accesses.bytes[number])].filter(Boolean).join(" · ")),
    make("span", differs ? "tag differs" : "tag", where));
}

function aliasDetails(page, buffer) {
  const aliases = page.model.buffers.aliases[buffer];
  if (!aliases.length) return null;
  return [make("h3", "", plural(aliases.length, "other value in it", "other values in it")), lines(aliases, (name) => make("div", "line", make("span", "what mono", name)))];
}

function operationDetails(page, t) {
  const { model } = page;
  const { operations, accesses } = model;
  const at = make("button", "", "What is in memory then");
  at.addEventListener("click", () => page.state.set({ moment: t }));
  const buttons = selectionButtons(page);
  buttons.prepend(at);
  const numbers = Array.from({ length: accesses.first[t + 1] - accesses.first[t] }, (_, i) => accesses.first[t] + i);
  return [
    make("h2", "", operations.name[t]),
    make("div", "source", operations.opName[t]),
    make("div", "source", operations.source[t]),
    facts(
      ["opcode", operations.opcode[t]],
      ["time", `t=${t}`],
      ["runs", operations.runs[t] === 1 ? "" : `× ${withCommas(operations.runs[t], Number.isInteger(operations.runs[t]) ? 0 : 2)}`],
      ...[...model.plans].reverse().map((plan) => [plan.label, durationText(plan, t)]),
    ),
    buttons,
    make("h3", "", plural(numbers.length, "access", "accesses")),
    lines(numbers, (number) => accessLine(page, number, linkTo(page, "buffer", accesses.buffer[number], model.buffers.name[accesses.buffer[number]]), "")),
  ];
}

function durationText(plan, t) {
  const wait = plan.waits[t];
  const text = printSeconds(plan.widths[t] - wait > 0 ? plan.widths[t] - wait : 0);
  return wait > 0 ? `${text}, after waiting ${printSeconds(wait)}` : text;
}

// ---- the tip

/** Returns the lines of the tip about what the pointer is at; null if there is nothing to say. */
function tipLines(page, hover) {
  const { model } = page;
  if (hover.kind === "buffer") return bufferTip(page, hover);
  if (hover.kind === "operation" || hover.kind === "wait") {
    const { operations } = model;
    const t = hover.number;
    const plan = hover.panel.plan;
    return [
      [model.nameOf(t), "b"],
      [t < model.end ? `${operations.opcode[t]} · t=${t} · ${durationText(plan, t)}${operations.runs[t] === 1 ? "" : ` in × ${withCommas(operations.runs[t])} runs`}` : `waits ${printSeconds(plan.waits[t])}`, "ink"],
      [t < model.end ? operations.opName[t] : ""],
      [t < model.end ? operations.source[t] : ""],
    ];
  }
  if (hover.kind === "copy") {
    const { copies } = hover.panel.plan;
    const i = hover.number;
    return [
      [model.buffers.name[hover.buffer], "b"],
      [`copy of ${printBytes(model.buffers.size[hover.buffer])} in ${printSeconds(copies.seconds[i] ?? 0)}`, "ink"],
      [`issued before ${model.nameOf(copies.start[i])} (t=${copies.start[i]})`],
      [`awaited before ${model.nameOf(copies.done[i])} (t=${copies.done[i]})`],
    ];
  }
  if (hover.kind === "loop") {
    return hover.loops.map(({ start, end, tripCount }) => [`loop × ${withCommas(tripCount)}: t=${start} … ${end - 1}`, "ink"]);
  }
  if (hover.picture && hover.t <= model.end) {
    const { occupied } = hover.panel.plan.usage[hover.picture.space];
    return [[`${model.nameOf(hover.t)} (t=${hover.t})`, "b"], [`${printBytes(occupied[hover.t])} occupied in all`]];
  }
  return null;
}

function bufferTip(page, hover) {
  const { model } = page;
  const { buffers } = model;
  const { number: buffer, residency } = hover;
  const { plan } = hover.panel;
  const { residencies } = plan;
  const served = model.accessesOf[buffer].filter((number) => plan.served[number] === residency).length;
  const filled = plan.copiesOf[buffer].some((i) => plan.copies.destination[i] === residency);
  const emptied = plan.copiesOf[buffer].some((i) => plan.copies.source[i] === residency);
  const offset = residencies.offset[residency];
  const copied = [filled && "copied in", emptied && "copied out"].filter(Boolean).join(", ");
  return [
    [buffers.name[buffer], "b"],
    [[printBytes(buffers.size[buffer]), buffers.shape[buffer], model.kinds[buffers.kind[buffer]].label].filter(Boolean).join(" · "), "ink"],
    [buffers.opName[buffer]],
    [buffers.source[buffer]],
    [`${model.spaces[residencies.space[residency]].name} 0x${offset.toString(16)} … 0x${(offset + buffers.size[buffer]).toString(16)}, t=${residencies.start[residency]} … ${residencies.end[residency] - 1}`],
    [[`${plural(served, "access", "accesses")} here`, copied].filter(Boolean).join(" · ") + (residencies.differs[residency] ? " · the other plan places it elsewhere" : "")],
    [model.cost[buffer] > 0 ? `costs ${printSeconds(model.cost[buffer])}` : ""],
  ];
}

function showTip(page, x, y) {
  const tip = document.getElementById("tip");
  const content = page.hover === null || page.hover.box ? null : tipLines(page, page.hover);
  tip.hidden = content === null;
  if (content === null) return;
  tip.replaceChildren(...content.filter(([text]) => text).map(([text, style]) => make(style === "b" ? "b" : "div", style === "ink" ? "ink" : "", text)));
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - width - 12 : x + 16;
  const top = y + 16 + height > innerHeight ? y - height - 12 : y + 16;
  tip.style.transform = `translate(${Math.max(left, 4)}px, ${Math.max(top, 4)}px)`;
}
