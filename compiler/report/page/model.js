// What the page shows, read from the data in the page (see data.py) and indexed by what the views ask.

/** Reads the data: JSON, gzipped, in base64. */
async function readData() {
  const packed = atob(document.getElementById("data").textContent.trim());
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(unpacked).text());
}

/** Returns the running sums of values, with a zero before them if `first` is 1. */
function sums(values, first = 0) {
  const result = new Float64Array(values.length + first);
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) result[i + first] = sum += values[i];
  return result;
}

/** Returns the last index at which ascending values are at most `value`, at least 0. */
function lastAtMost(values, value) {
  let low = 0;
  let high = values.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

// Tints of a kind's color, so that neighbors differ; the golden ratio spreads consecutive numbers.
const TINTS = 8;
const GOLDEN = 0.6180339887;

class Model {
  constructor(data) {
    Object.assign(this, data);
    this.end = data.operations.name.length;
    this.count = data.buffers.name.length;
    this.subject = data.plans.length - 1;
    this.accessTime = this._accessTimes();
    this.accessesOf = grouped(data.accesses.buffer, this.count);
    this.bucket = Uint16Array.from(
      data.buffers.kind,
      (kind, buffer) => kind * TINTS + Math.floor(((buffer * GOLDEN) % 1) * TINTS),
    );
    this.cost = Float64Array.from(data.buffers.lost, (lost, buffer) => lost + data.buffers.waited[buffer]);
    this.plans = data.plans.map((plan, number) => this._plan(plan, number));
    this.loopDepth = data.loops.map(
      (loop) => data.loops.filter((other) => other !== loop && other.start <= loop.start && loop.end <= other.end).length,
    );
    this.usedLinks = data.links.map((_, link) => link).filter((link) => data.plans.some((plan) => plan.copies.link.includes(link)));
    this.hasWaits = this.plans.some((plan) => plan.waits.some((wait) => wait > 0));
    this.extent = { time: Math.max(...this.plans.map((plan) => plan.edges.at(-1))) || 1, operations: this.end + 1 };
  }

  /** Returns the texts of a buffer that a search looks at, in lower case. */
  haystack(buffer) {
    this._haystacks ??= [];
    const { name, opName, source, shape, group } = this.buffers;
    return (this._haystacks[buffer] ??= [name, opName, source, shape, group]
      .map((column) => column[buffer])
      .join("\n")
      .toLowerCase());
  }

  _accessTimes() {
    const times = new Int32Array(this.accesses.buffer.length);
    const first = this.accesses.first;
    for (let t = 0; t < this.end; t += 1) times.fill(t, first[t], first[t + 1]);
    return times;
  }

  _plan(plan, number) {
    const residencies = Object.fromEntries(
      Object.entries(plan.residencies).map(([key, values]) => [key, Float64Array.from(values)]),
    );
    const order = Uint32Array.from(residencies.buffer, (_, i) => i);
    order.sort((a, b) => this.bucket[residencies.buffer[a]] - this.bucket[residencies.buffer[b]] || a - b);
    return {
      ...plan,
      number,
      residencies,
      edges: sums(plan.widths, 1),
      waits: Float64Array.from(plan.waits),
      // Per memory, its residencies, those of one color together.
      inSpace: this.spaces.map((_, space) => order.filter((i) => residencies.space[i] === space)),
      residenciesOf: grouped(plan.residencies.buffer, this.count),
      copiesOf: grouped(plan.copies.source.map((residency) => plan.residencies.buffer[residency]), this.count),
      usage: plan.usage.map((used) => ({ ...used, occupied: sums(used.occupied), reserved: sums(used.reserved) })),
    };
  }

  /** Returns where the time `t` of a plan lies on an axis; what lasts beyond the end ends with the axis. */
  at(plan, axis, t) {
    return axis === "time" ? plan.edges[Math.min(t, this.end + 1)] : Math.min(t, this.end + 1);
  }

  /** Returns the operation at a position of an axis. */
  operationAt(plan, axis, position) {
    return Math.min(axis === "time" ? lastAtMost(plan.edges, position) : Math.floor(position), this.end);
  }

  /** Returns where copy `i` lies on an axis; null if it is never made in this run of the program. */
  copyAt(plan, axis, i) {
    const { begin, end, start, done, link } = plan.copies;
    if (link[i] < 0 || begin[i] === null) return null;
    return axis === "time" ? [begin[i], end[i]] : [start[i], done[i]];
  }

  /** Returns the name of a time: that of its operation. */
  nameOf(t) {
    return t < this.end ? this.operations.name[t] : "the end";
  }
}

/** Returns, per value `0 … count - 1`, the indices at which it stands. */
function grouped(values, count) {
  const groups = Array.from({ length: count }, () => []);
  values.forEach((value, i) => groups[value].push(i));
  return groups;
}
