"use strict";
// Drawing: elements made without markup (textContent only, so that no name from a file is ever parsed), axes, lines.

/** A text in the language of the page; {name} becomes the value of that name. */
const t = (text, values = {}) => (data.words[text] || text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: attributes, then children; a string becomes text, null nothing. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return fill(element, attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A number as a person would write it; the file's own words for what is not finite. */
function show(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

/** An accuracy at an axis, in the percent of the tables. */
const percentTick = (value) => `${Number((100 * value).toPrecision(4))}%`;

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) || rough;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function logTicks(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first < 1) return ticks(low, high, count).filter((value) => value > 0);
  const every = Math.ceil((last - first + 1) / count);
  return Array.from({length: last - first + 1}, (_, i) => 10 ** (first + i)).filter((_, i) => i % every === 0);
}

/** Ticks of epochs and steps: whole numbers, where there is room for two. */
function wholeTicks(low, high, count) {
  const found = ticks(low, high, count), whole = found.filter(Number.isInteger);
  return whole.length > 1 ? whole : found;
}

/** A frame with axes. `x` and `y` are [low, high]; returns the svg, the clipped plot area and both scales. */
function frame({width, height, x, y, logY = false, xLabel = "", yLabel = "", label = "", xTicks = null, left = 46, written = show}) {
  const top = yLabel ? 20 : 8, right = 10, bottom = xLabel ? 34 : 20;
  const [y0, y1] = logY ? y.map(Math.log10) : y;
  const X = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const Y = (value) => height - bottom - (((logY ? Math.log10(value) : value) - y0) / (y1 - y0 || 1)) * (height - top - bottom);
  const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});
  for (const tick of logY ? logTicks(...y, height / 45) : ticks(...y, height / 45)) {
    svg.append(draw("line", {class: "rule", x1: left, x2: width - right, y1: Y(tick), y2: Y(tick)}));
    svg.append(draw("text", {x: left - 6, y: Y(tick) + 4, "text-anchor": "end"}, written(tick)));
  }
  for (const [value, text] of xTicks || wholeTicks(...x, width / 75).map((tick) => [tick, show(tick)])) {
    svg.append(draw("text", {x: X(value), y: height - bottom + 15, "text-anchor": "middle"}, text));
  }
  if (xLabel) svg.append(draw("text", {x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle"}, xLabel));
  if (yLabel) svg.append(draw("text", {x: 0, y: 10}, yLabel));
  const id = `clip${frame.count = (frame.count || 0) + 1}`;
  const box = draw("rect", {x: left - 6, y: top - 4, width: Math.max(width - left - right, 0) + 12, height: height - top - bottom + 8});
  svg.append(draw("clipPath", {id}, box));
  const plot = draw("g", {"clip-path": `url(#${id})`});
  svg.append(plot);
  return {svg, plot, X, Y, width, height, left, right, top, bottom};
}

/** A path through the points; a missing value breaks it, an infinite one leaves through the top. */
function path(axes, xs, ys) {
  let text = "", pen = "M";
  for (let i = 0; i < xs.length; i++) {
    const y = ys[i] === null ? NaN : axes.Y(ys[i]);
    if (Number.isFinite(y)) {
      text += `${pen}${axes.X(xs[i]).toFixed(1)} ${Math.min(Math.max(y, -1e5), 1e5).toFixed(1)}`;
      pen = "L";
    } else pen = "M";
  }
  return text;
}

function band(axes, xs, lows, highs) {
  const whole = xs.map((_, i) => i).filter((i) => Number.isFinite(axes.Y(lows[i])) && Number.isFinite(axes.Y(highs[i])));
  const point = (i, ys) => `${axes.X(xs[i]).toFixed(1)} ${axes.Y(ys[i]).toFixed(1)}`;
  const there = whole.map((i) => point(i, highs)), back = whole.reverse().map((i) => point(i, lows));
  return there.length ? `M${[...there, ...back].join("L")}Z` : "";
}

/** The range of values to show: all of them, but at most four times what nineteen in twenty need. */
function range(values, logY) {
  const finite = values.filter((value) => Number.isFinite(value) && (!logY || value > 0)).sort((a, b) => a - b);
  if (!finite.length) return logY ? [0.1, 1] : [0, 1];
  const at = (share) => finite[Math.floor(share * (finite.length - 1))];
  let low = finite[0], high = finite[finite.length - 1];
  if (logY) return [Math.max(low, at(0.02) / 10) / 1.1, Math.min(high, at(0.98) * 10) * 1.1];
  high = Math.min(high, at(0.95) + 3 * (at(0.95) - at(0.05)));
  low = Math.max(low, at(0.05) - 3 * (at(0.95) - at(0.05)));
  const margin = 0.04 * (high - low || Math.abs(high) || 1);
  return [low >= 0 && low < 0.3 * high ? 0 : low - margin, high + margin];
}

/** A curve's value at x, between its points; NaN outside of it. */
function valueAt(xs, ys, x) {
  const last = xs.length - 1;
  if (last < 0 || x < xs[0] || x > xs[last]) return NaN;
  let low = 0, high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  if (ys[low] === null || ys[high] === null) return x === xs[low] && ys[low] !== null ? ys[low] : NaN;
  const share = high === low ? 0 : (x - xs[low]) / (xs[high] - xs[low]);
  return ys[low] + share * (ys[high] - ys[low]);
}

/** Mean and 95 % t interval of several curves at common points; only where at least half of them have a value. */
function average(curves, t975, points = 100) {
  const low = Math.min(...curves.map((curve) => curve.x[0])), high = Math.max(...curves.map((curve) => curve.x[curve.x.length - 1]));
  const same = curves.every((curve) => curve.x === curves[0].x);
  const xs = same ? curves[0].x : Array.from({length: points}, (_, i) => low + ((high - low) * i) / (points - 1));
  const found = {x: [], mean: [], low: [], high: []};
  xs.forEach((x, i) => {
    const values = curves.map((curve) => (same ? curve.y[i] : valueAt(curve.x, curve.y, x)));
    const finite = values.filter((value) => value !== null && Number.isFinite(value));
    if (2 * finite.length < curves.length || !finite.length) return;
    const n = finite.length, mean = finite.reduce((a, b) => a + b) / n;
    const sd = Math.sqrt(finite.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(n - 1, 1));
    const half = n > 1 ? ((t975[n - 2] || 1.96) * sd) / Math.sqrt(n) : 0;
    found.x.push(x); found.mean.push(mean); found.low.push(mean - half); found.high.push(mean + half);
  });
  return found;
}

/** Colours for the levels of a knob: a ramp where they are numbers, told-apart hues where they are not. */
function levelColours(levels) {
  const numeric = levels.length > 1 && levels.every((level) => typeof level === "number");
  const dark = document.documentElement.dataset.theme === "dark";
  if (numeric) {
    const ramp = (share) => `hsl(${265 - 225 * share} ${dark ? 70 : 62}% ${dark ? 68 - 6 * share : 40 + 4 * share}%)`;
    return levels.map((_, i) => ramp(i / (levels.length - 1)));
  }
  const hues = dark
    ? ["#79b2ec", "#f0a35e", "#6fcf97", "#e58bc0", "#d9d36a", "#9fa8ff", "#7fd6d6", "#c9a58f"]
    : ["#2f6fb3", "#d1701b", "#2b8a5a", "#b8448a", "#8c8410", "#5a55c8", "#15868a", "#85604a"];
  return levels.map((_, i) => hues[i % hues.length]);
}

function key(colour, text, dash = "", mark = "line", width = 2.5) {
  const line = draw("line", {x1: 0, x2: 30, y1: 5, y2: 5, stroke: colour, "stroke-width": width, "stroke-dasharray": dash});
  const picture = [dash === null ? null : line, mark === "line" ? null : marker(mark, 15, 5, colour)];
  return make("span", {}, draw("svg", {viewBox: "0 0 30 10", "aria-hidden": "true"}, picture), text);
}

/** A verdict's sign on a curve: shape as well as colour, for eyes that tell few colours apart. */
function marker(verdict, x, y, colour, size = 4.5) {
  const shapes = {
    overfit: `M${x} ${y - size}L${x + size} ${y + size * 0.8}H${x - size}Z`,
    diverged: `M${x - size * 0.8} ${y - size * 0.8}l${size * 1.6} ${size * 1.6}m0 ${-size * 1.6}l${-size * 1.6} ${size * 1.6}`,
    underfit: `M${x} ${y + size}L${x + size} ${y - size * 0.8}H${x - size}Z`,
  };
  const cross = verdict === "diverged";
  if (shapes[verdict]) {
    return draw("path", {d: shapes[verdict], fill: cross ? "none" : colour, stroke: cross ? colour : "var(--card)", "stroke-width": cross ? 2.2 : 1});
  }
  return draw("circle", {cx: x, cy: y, r: size * 0.66, fill: colour, stroke: "var(--card)"});
}
