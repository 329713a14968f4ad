// Bytes, seconds and ratios as people read them: what units.py prints in the other parts of the report.

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];
const SECONDS = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];

/** Returns a number with its thousands separated, the same in every browser's language. */
function withCommas(value, digits = 0) {
  const [whole, fraction] = value.toFixed(digits).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction ? `${grouped}.${fraction}` : grouped;
}

function threeDigits(value) {
  const magnitude = Math.abs(value);
  return withCommas(value, magnitude >= 99.95 ? 0 : magnitude >= 9.995 ? 1 : 2);
}

function printBytes(size) {
  let unit = 0;
  while (Math.abs(size) >= 1000 && unit < BYTES.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit ? threeDigits(size) : size.toFixed(0)} ${BYTES[unit]}`;
}

function printSeconds(seconds) {
  if (seconds === 0) return "0 s";
  for (const [scale, unit] of SECONDS) {
    if (Math.abs(seconds) >= 0.9995 * scale || unit === "ns") return `${threeDigits(seconds / scale)} ${unit}`;
  }
}

function printPercent(ratio) {
  const text = withCommas(100 * Math.abs(ratio), 1);
  return text === "0.0" ? "0.0 %" : `${ratio < 0 ? "-" : "+"}${text} %`;
}

/** Returns `1 buffer`, `2 buffers`. */
function plural(count, noun, several = `${noun}s`) {
  return `${withCommas(count)} ${count === 1 ? noun : several}`;
}

/** Returns round values `0 … end` of which about `count` fit between `from` and `to`; `base` is 2 or 10. */
function ticks(from, to, count, base) {
  const rough = (to - from) / count;
  let step = base ** Math.ceil(Math.log(rough) / Math.log(base));
  if (base === 10) step = [step / 5, step / 2, step].find((candidate) => candidate >= rough);
  const values = [];
  for (let i = Math.ceil(from / step); i * step <= to; i += 1) values.push(i * step);
  return { step, values };
}

/** Returns moments on the time axis as text, all in one unit and with as many digits as tell them apart. */
function printMoments({ step, values }) {
  const largest = Math.max(...values.map(Math.abs), step);
  const [scale, unit] = SECONDS.find(([candidate]) => largest >= candidate) ?? SECONDS.at(-1);
  const digits = Math.max(0, Math.ceil(-Math.log10(step / scale) - 1e-9));
  return values.map((value) => `${withCommas(value / scale, digits)} ${unit}`);
}
