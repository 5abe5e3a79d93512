// What each knob does: its levels with their means, differences with their intervals.

function natural(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, {numeric: true});
}

function measureMenu(id, redraw) {
  const available = [...new Set(part().effects.map((effect) => effect.measure))];
  if (!available.includes(state.measure)) state.measure = available[0];
  $(id).replaceChildren(...(available.length > 1
    ? [select(t("measure"), Object.fromEntries(available.map((name) => [name, fullName(name)])), state.measure, (value) => { state.measure = value; redraw(); })]
    : []));
}

function claimsSection() {
  const {claims, effects} = part();
  $("claims").hidden = !effects.length;
  $("claims-list").replaceChildren(...claims.map((text) => make("li", {}, text)));
  $("claims-note").textContent = claims.length ? t("After correction for all the comparisons made; what is not listed may be chance.") : t("No difference holds up after correction for all the comparisons made: what is seen below may be chance.");
}

function knobsSection() {
  $("knobs").hidden = !part().effects.length;
  if (!part().effects.length) return;
  measureMenu("knobs-controls", () => { knobsSection(); effectsSection(); });
  $("knobs-note").textContent = t("Each dot is a run; the bar is the mean at that level, averaged over the other knobs, with its 95 % t interval over seeds.");
  const effects = part().effects.filter((effect) => effect.measure === state.measure);
  const means = effects.flatMap((effect) => effect.levels.flatMap((level) => [level.mean, level.low, level.high]));
  const y = range([...here().map((run) => run.measures[state.measure]), ...means], false);
  $("knobs-charts").replaceChildren(...effects.map((effect) => knobFigure(effect, y)));
  $("knobs-why").replaceChildren(...effects.filter((effect) => (effect.why || []).length).flatMap((effect) =>
    [make("p", {}, effect.beside), make("ul", {}, effect.why.map((one) => make("li", {}, one.sentence)))]));
}

function knobFigure(effect, y) {
  const levels = effect.levels.map((level) => level.value), colours = levelColours(levels);
  const axes = frame({width: 270, height: 225, x: [-0.5, levels.length - 0.5], y, left: 40, xLabel: brief(effect.knob), yLabel: t(data.measures[state.measure][0]),
    written: isAccuracy(state.measure) ? percentTick : show, label: `${state.measure} by ${effect.knob}`,
    xTicks: levels.map((level, i) => [i, show(level).slice(0, Math.max(4, Math.floor(38 / levels.length)))])});
  const members = spread(here().filter(seen), 1000);
  members.forEach((run, i) => {
    const value = run.measures[state.measure], at = levels.findIndex((level) => String(level) === String(run.levels[effect.knob]));
    if (typeof value !== "number" || at < 0) return;
    const jitter = ((i * 0.618034) % 1 - 0.5) * 0.5;
    axes.plot.append(draw("circle", {cx: axes.X(at + jitter), cy: axes.Y(value), r: members.length > 200 ? 1.6 : 2.4, fill: colours[at], opacity: members.length > 200 ? 0.3 : 0.45}));
  });
  effect.levels.forEach((level, i) => {
    if (level.mean === null) return;
    if (level.low !== null) axes.plot.append(draw("line", {x1: axes.X(i), x2: axes.X(i), y1: axes.Y(level.low), y2: axes.Y(level.high), stroke: "var(--ink)", "stroke-width": 2}));
    axes.plot.append(draw("line", {x1: axes.X(i - 0.28), x2: axes.X(i + 0.28), y1: axes.Y(level.mean), y2: axes.Y(level.mean), stroke: "var(--ink)", "stroke-width": 2.5}));
  });
  const [first, ...more] = effect.sentences;
  return make("figure", {}, make("figcaption", {}, make("strong", {}, brief(effect.knob)), make("small", {}, first || ""),
    more.length ? make("details", {}, make("summary", {}, t("at each level of the other knobs")), more.map((text) => make("p", {class: "muted"}, text))) : null), axes.svg);
}

function effectsSection() {
  const rows = part().effects.filter((effect) => effect.measure === state.measure)
    .flatMap((effect) => effect.contrasts.map((contrast) => ({...contrast, knob: effect.knob})))
    .filter((row) => row.difference !== null).slice(0, 40);
  $("effects").hidden = !part().effects.length;
  if (!part().effects.length) return;
  measureMenu("effects-controls", () => { knobsSection(); effectsSection(); });
  $("effects-note").textContent = t("Differences in {measure} at equal values of the other knobs, by seed, with 95 % intervals. Filled: holds up after correction for all the comparisons made. Hollow: it may be chance.", {measure: fullName(state.measure)}) + (part().noise ? ` ${part().noise}${t(".")}` : "");
  const width = wide($("effects-chart")), noteWidth = width > 760 ? 310 : 0, isAbove = width < 560; // the name above its interval
  const textWidth = isAbove ? 12 : Math.min(260, width * 0.34), height = isAbove ? 42 : 26;
  const ends = rows.flatMap((row) => [row.low, row.high, row.difference, 0]).filter(Number.isFinite);
  const pad = 0.06 * (Math.max(...ends, 0) - Math.min(...ends, 0)) || 1;
  const x = [Math.min(...ends, 0) - pad, Math.max(...ends, 0) + pad];
  const X = (value) => textWidth + ((value - x[0]) / (x[1] - x[0])) * (width - textWidth - noteWidth - 16);
  const svg = draw("svg", {viewBox: `0 0 ${width} ${rows.length * height + 40}`, role: "img", "aria-label": "differences with intervals"});
  for (const tick of ticks(...x, 6)) {
    svg.append(draw("line", {class: tick === 0 ? "zero" : "rule", x1: X(tick), x2: X(tick), y1: 0, y2: rows.length * height}),
      draw("text", {x: X(tick), y: rows.length * height + 18, "text-anchor": "middle"}, isAccuracy(state.measure) ? show(Number((100 * tick).toPrecision(3))) : show(tick)));
  }
  svg.append(draw("text", {x: X((x[0] + x[1]) / 2), y: rows.length * height + 34, "text-anchor": "middle"}, isAccuracy(state.measure) ? t("difference in {measure}, points of a percent", {measure: fullName(state.measure)}) : t("difference in {measure}", {measure: fullName(state.measure)})));
  rows.forEach((row, i) => {
    const y = i * height + (isAbove ? 30 : height / 2), colour = row.claimed ? "var(--accent)" : "var(--muted)";
    const label = `${brief(row.knob)}: ${show(row.a)} − ${show(row.b)}`, most = Math.floor((isAbove ? width - 100 : textWidth) / 6.6);
    svg.append(draw("text", {class: "ink", x: 0, y: isAbove ? y - 14 : y + 4, stroke: "var(--card)", "stroke-width": 4, "paint-order": "stroke"}, label.length > most ? `${label.slice(0, most - 1)}…` : label, draw("title", {}, label)));
    if (row.low !== null) svg.append(draw("line", {x1: X(row.low), x2: X(row.high), y1: y, y2: y, stroke: colour, "stroke-width": 2}));
    svg.append(draw("circle", {cx: X(row.difference), cy: y, r: 4.5, fill: row.claimed ? colour : "var(--card)", stroke: colour, "stroke-width": 2}));
    const p = row.p_adjusted === null || row.p_adjusted === undefined ? "" : row.p_adjusted < 0.001 ? "p < 0.001" : `p = ${show(row.p_adjusted)}`;
    const answer = row.answer === "not enough seeds" && row.seeds_needed ? t("not enough seeds: {n} would settle it", {n: row.seeds_needed}) : t(row.answer);
    if (noteWidth) svg.append(draw("text", {x: width - noteWidth, y: y + 4}, [p, answer].filter(Boolean).join(", ")));
    if (isAbove) svg.append(draw("text", {x: width - 8, y: y - 14, "text-anchor": "end"}, p));
  });
  $("effects-chart").replaceChildren(rows.length ? svg : make("p", {class: "muted"}, t("No two levels can be compared at equal values of the other knobs.")));
  $("interactions").replaceChildren(...part().interactions.filter((item) => item.measure === state.measure && item.claimed).map((item) => make("li", {}, item.sentence)));
}

