// The page: what the data says, laid out. State (sorting, filter, theme) stands in the address after '#', to be shared.

const data = JSON.parse(document.getElementById("data").textContent);
const {runs, knobs, verdicts} = data; // verdicts: worst first
const spelled = Object.fromEntries(Object.entries(data.spelled).map(([name, text]) => [name, t(text)]));
const $ = (id) => document.getElementById(id);
const state = {sort: "", descending: false, verdicts: new Set(), text: "", theme: "", colour: "", curve: "val_loss", log: false, start: false, allGroups: false, measure: "", gradient: 0, part: 0, classes: "recall", open: new Set()};
const MOST_LINES = 400;
const DASHES = ["", "10 6", "3 4", "12 4 3 4"]; // so that of two means on top of each other both are seen
const VERDICT_DASH = {overfit: "", diverged: "2 2", underfit: "10 3 2 3", too_short: "1 4", no_validation: "4 4", healthy: "7 3"};
const signs = {overfit: t("overfit, from its onset"), diverged: t("diverged, last finite value"), underfit: t("underfit, at its best epoch"), healthy: t("healthy, at its best epoch"), too_short: t("too short to judge"), no_validation: t("no validation loss")};
const fullName = (measure) => t((data.measures[measure] || [measure, measure])[1]);
const CURVES = {val_loss: t("validation loss"), train_loss: t("training loss"), gap: t("gap: validation − training loss"), val_accuracy: t("validation accuracy"), train_accuracy: t("training accuracy"), ...Object.fromEntries(Object.entries(data.curves).map(([name, text]) => [name, t(text)]))};

for (const run of runs) {
  run.x = data.grids[run.x];
  if (run.val_loss) run.gap = run.val_loss.map((value, i) => (value === null || run.train_loss[i] === null ? null : value - run.train_loss[i]));
}
const brief = (knob) => data.brief[knob] || knob;
const plural = (count, word) => (data.words[`{n} ${word}s`] ? t(`{n} ${word}s`, {n: count}) : `${count} ${word}${count === 1 ? "" : "s"}`);
const signOf = data.signs;
const colourOf = (verdict) => `var(--${verdict})`;
const part = () => data.parts[state.part]; // the comparison on show: of several sweeps, one
const here = () => part().runs.map((i) => runs[i]);
const seen = (run) => (!state.verdicts.size || state.verdicts.has(run.verdict)) && matches(run, state.text);
const percent = (value) => (typeof value === "number" ? `${(100 * value).toFixed(2)}%` : show(value));
const isAccuracy = (name) => name.endsWith("accuracy");
const wide = (element) => Math.max(element.clientWidth, 280);

function matches(run, text) {
  const hay = [run.name, run.verdict, data.spelled[run.verdict], spelled[run.verdict], run.status, ...knobs.map((knob, i) => `${brief(knob)}=${run.knobs[i]}`)].join(" ").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => hay.includes(word));
}

function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  state.sort = (given.get("sort") || "").replace(/^-/, "");
  state.descending = (given.get("sort") || "").startsWith("-");
  state.verdicts = new Set((given.get("verdict") || "").split(",").filter((name) => verdicts.includes(name)));
  state.text = given.get("filter") || "";
  state.theme = given.get("theme") || "";
  state.colour = ["verdict", ...knobs].includes(given.get("colour")) ? given.get("colour") : "";
  state.curve = given.get("curve") in CURVES ? given.get("curve") : "val_loss";
  state.part = Math.max(0, data.parts.findIndex((one) => one.name === given.get("sweep")));
  state.open = new Set((given.get("open") || "").split(",").map((index) => runs[index]).filter(Boolean));
}

function writeHash() {
  const said = new URLSearchParams();
  if (state.sort) said.set("sort", (state.descending ? "-" : "") + state.sort);
  if (state.verdicts.size) said.set("verdict", [...state.verdicts].join(","));
  if (state.text) said.set("filter", state.text);
  if (state.theme) said.set("theme", state.theme);
  if (state.colour) said.set("colour", state.colour);
  if (state.curve !== "val_loss") said.set("curve", state.curve);
  if (state.part) said.set("sweep", part().name);
  if (state.open.size) said.set("open", [...state.open].map((run) => run.index).join(","));
  history.replaceState(null, "", `#${said}`);
}

function applyTheme() {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function select(label, options, value, change) {
  const menu = make("select", {onchange: (event) => change(event.target.value)},
    Object.entries(options).map(([name, text]) => make("option", {value: name, ...(name === value ? {selected: ""} : {})}, text)));
  return make("label", {}, label, menu);
}

// ------------------------------------------------------------------ head

function head() {
  $("title").textContent = data.title;
  $("facts").replaceChildren(...data.facts.map(([name, text]) => make("div", {}, make("dt", {}, t(name)), make("dd", {}, name === "command" ? make("code", {}, text) : text))));
  $("summary").textContent = [plural(here().length, "run"), plural(part().groups.length, "group"), ...(varied().length ? [t("knobs: {names}", {names: varied().map(brief).join(", ")})] : [])].join(" · ");
  const counts = verdicts.map((verdict) => [verdict, here().filter((run) => run.verdict === verdict).length]).filter(([, count]) => count);
  $("verdicts").className = state.verdicts.size ? "some" : "";
  $("verdicts").replaceChildren(...counts.map(([verdict, count]) => make("button", {
    type: "button", style: `flex: ${count} 0 auto; background: ${colourOf(verdict)}`, "aria-pressed": String(state.verdicts.has(verdict)),
    title: t("show only runs judged {verdict}", {verdict: spelled[verdict]}),
    onclick: () => { state.verdicts.has(verdict) ? state.verdicts.delete(verdict) : state.verdicts.add(verdict); update(); },
  }, `${signOf[verdict]} ${counted(verdict, here())}`)));
  answer("", data);
  $("parts").replaceChildren(...(part().name === null ? [] : data.parts.map((one, i) => make("button", {
    type: "button", "aria-pressed": String(i === state.part), onclick: () => { state.part = i; update(); contents(); }}, one.name))));
  answer("part-", part());
}

/** Count the runs of a verdict by what they are called: healthy curves of a doubtful run are not overfit. */
function counted(verdict, among) {
  const called = [spelled[verdict], t("not overfit")].map((name, i) => [among.filter((run) => run.verdict === verdict && run.doubtful === Boolean(i)).length, name]);
  return called.filter(([count]) => count).map((pair) => pair.join(" ")).join(", ");
}

/** What the runs come to, the command to run next, and the reasons to doubt it. */
function answer(place, {answer, next, reason, warnings}) {
  $(`${place}answer`).replaceChildren(...[answer, reason].filter(Boolean).map((text) => make("p", {}, text)), ...(next ? [make("pre", {}, next)] : []));
  $(`${place}warnings`).replaceChildren(...warnings.map((text) => make("li", {}, text)));
}

/** The knobs that differ among the runs on show. */
const varied = () => knobs.filter((knob, i) => new Set(here().map((run) => String(run.knobs[i]))).size > 1);

const worded = (text) => { const found = /^(\d+) of (\d+)$/.exec(text); return found ? t("{a} of {b}", {a: found[1], b: found[2]}) : t(text); };

/** Rows of cells that are already words: what tells the rows apart at the left, numbers at the right. */
function fillTable(element, {names, numbers, rows}) {
  const side = (i) => (i < names.length ? "" : "number");
  element.tHead.replaceChildren(make("tr", {}, [...names, ...numbers].map((title, i) => make("th", {class: `plain ${side(i)}`, scope: "col"}, t(title)))));
  element.tBodies[0].replaceChildren(...rows.map((cells) => make("tr", {}, cells.map((text, i) => make("td", {class: side(i)}, worded(text))))));
}

function classesSection() {
  const {classes} = part();
  $("classes").hidden = !classes[state.classes];
  if ($("classes").hidden) return;
  $("classes-note").textContent = t("On the test split, by the weights with the lowest validation loss; {interval}.", {interval: t(data.interval)});
  $("classes-controls").replaceChildren(select(t("number"), Object.fromEntries(Object.entries(data.per_class).map(([name, text]) => [name, t(text)])), state.classes, (value) => { state.classes = value; classesSection(); }));
  fillTable($("classes-table"), classes[state.classes]);
}

function resultsSection() {
  const {table, captions, commands} = part();
  $("results").hidden = !table;
  if (!table) return;
  fillTable($("results-table"), table);
  $("results-note").textContent = `${captions.map(([text, values]) => t(text, values)).join("; ")}; ${t("best: at the lowest validation loss, whose weights the test is of; last: at the end.")}`;
  $("results-copy").replaceChildren(...Object.entries(part().copies).map(([kind, text]) =>
    make("button", {type: "button", onclick: (event) => copy(event.target, text)}, t("copy as {kind}", {kind}))));
  $("results-commands").hidden = !commands.length;
  $("results-commands").lastChild.replaceChildren(...commands.map(([name, command]) => make("div", {}, make("p", {class: "muted"}, name), make("pre", {}, command))));
}

/** Copy, and say so; where the browser forbids it, show the text to be copied by hand. */
function copy(button, text) {
  const told = button.textContent, by_hand = () => button.parentElement.append(make("textarea", {readonly: "", rows: 8, "aria-label": told}, text));
  (navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject(new Error("no clipboard"))).then(() => {
    button.textContent = t("copied");
    setTimeout(() => { button.textContent = told; }, 1500);
  }, by_hand);
}

function contents() {
  const links = [...document.querySelectorAll("main > section")].filter((section) => !section.hidden);
  $("contents").replaceChildren(...links.map((section) => make("a", {
    href: `#${section.id}`,
    onclick: (event) => { event.preventDefault(); section.scrollIntoView(); },
  }, section.querySelector("h2").textContent)));
}

// ------------------------------------------------------------------ curves

/** A curve after its first fifth: a steep start would press all that follows flat. */
const settled = (values) => values.slice(Math.min(Math.ceil(values.length / 5), values.length - 1));

function spread(list, most) {
  if (list.length <= most) return list;
  return Array.from({length: most}, (_, i) => list[Math.floor((i * list.length) / most)]);
}

function markRun(axes, run, name, size) {
  const place = run.verdict === "overfit" ? run.onset : run.verdict === "diverged" ? lastFinite(run, name) : run.best_epoch;
  if (place === null || place === undefined || !run[name]) return;
  const y = valueAt(run.x, run[name], place);
  if (Number.isFinite(axes.Y(y))) axes.plot.append(marker(run.verdict, axes.X(place), Math.max(axes.Y(y), axes.top), colourOf(run.verdict), size));
}

function lastFinite(run, name) {
  for (let i = run.x.length - 1; i >= 0; i--) if (run[name] && run[name][i] !== null) return run.x[i];
  return null;
}

/** What colours the curves: as chosen, else the verdict; where all agree, the knob with the strongest effect. */
function colouring(usable) {
  if (state.colour === "verdict" || usable.includes(state.colour)) return state.colour;
  if (new Set(here().map((run) => run.verdict)).size > 1) return "verdict";
  const first = part().effects.map((effect) => effect.measure)[0];
  const size = (knob) => Math.max(-1, ...part().effects.filter((effect) => effect.measure === first && effect.knob === knob)
    .flatMap((effect) => effect.contrasts.map((one) => (one.difference === null ? -1 : Math.abs(one.difference)))));
  return usable.reduce((best, knob) => (best === "verdict" || size(knob) > size(best) ? knob : best), "verdict");
}

function curvesSection() {
  const [only, ...others] = here();
  if (only && !others.length) return aloneSection(only);
  const available = Object.fromEntries(Object.entries(CURVES).filter(([name]) => runs.some((run) => run[name])));
  if (!(state.curve in available)) state.curve = Object.keys(available)[0];
  const usable = varied().filter((knob) => new Set(here().map((run) => String(run.knobs[knobs.indexOf(knob)]))).size <= 8);
  const coloured = colouring(usable);
  const redraw = (key) => (value) => { state[key] = value; writeHash(); curvesSection(); };
  $("curves-controls").replaceChildren(
    select(t("show"), available, state.curve, redraw("curve")),
    select(t("colour by"), {verdict: t("verdict"), ...Object.fromEntries(usable.map((knob) => [knob, brief(knob)]))}, coloured, redraw("colour")),
    make("label", {}, make("input", {type: "checkbox", ...(state.log ? {checked: ""} : {}), onchange: (event) => redraw("log")(event.target.checked)}), t("log scale")),
    make("label", {}, make("input", {type: "checkbox", ...(state.start ? {checked: ""} : {}), onchange: (event) => redraw("start")(event.target.checked)}), t("whole range")));
  const there = here().filter((run) => seen(run) && run[state.curve]);
  const lines = spread(there, MOST_LINES);
  const xs = lines.flatMap((run) => [run.x[0], run.x[run.x.length - 1]]);
  const log = state.log && lines.some((run) => run[state.curve].some((value) => value > 0));
  const axes = frame({width: wide($("curves-chart")), height: 380, x: [Math.min(...xs, xs.length ? Infinity : 0), Math.max(...xs, xs.length ? -Infinity : 1)],
    y: range(lines.flatMap((run) => (state.start ? run[state.curve] : settled(run[state.curve]))), log), logY: log, xLabel: t(data.x_label), yLabel: CURVES[state.curve], written: isAccuracy(state.curve) ? percentTick : show, label: `${CURVES[state.curve]} of ${plural(lines.length, "run")}`});
  const k = knobs.indexOf(coloured), byKnob = k >= 0;
  const levels = byKnob ? [...new Map(here().map((run) => [String(run.knobs[k]), run.knobs[k]])).values()].sort(natural) : [];
  const colours = levelColours(levels), colour = (run) => (byKnob ? colours[levels.indexOf(run.knobs[k])] : colourOf(run.verdict));
  const dash = (i) => DASHES[i % DASHES.length];
  const faint = byKnob ? 0.16 : lines.length > 150 ? 0.22 : lines.length > 40 ? 0.38 : 0.75;
  for (const run of lines) axes.plot.append(draw("path", {class: "line", d: path(axes, run.x, run[state.curve]), stroke: colour(run), "stroke-width": 1.2, opacity: faint,
    "stroke-dasharray": byKnob ? "" : VERDICT_DASH[run.verdict]}));
  levels.forEach((level, i) => {
    const members = there.filter((run) => run.knobs[k] === level);
    if (!members.length) return;
    const mean = average(ended(members).map((run) => ({x: run.x, y: run[state.curve]})), data.t975);
    axes.plot.append(draw("path", {d: band(axes, mean.x, mean.low, mean.high), fill: colours[i], opacity: 0.18}),
      draw("path", {class: "line", d: path(axes, mean.x, mean.mean), stroke: colours[i], "stroke-width": 2.6, "stroke-dasharray": dash(i)}));
  });
  if (!byKnob || lines.length <= 40) for (const run of lines) markRun(axes, run, state.curve, lines.length > 60 ? 3.6 : 4.6);
  const hover = draw("g", {});
  axes.plot.append(hover);
  axes.svg.addEventListener("mousemove", (event) => nearest(event, axes, lines, hover));
  axes.svg.addEventListener("mouseleave", () => { hover.replaceChildren(); $("curves-readout").textContent = ""; });
  axes.svg.addEventListener("click", () => { if (hover.run) focusRun(hover.run); });
  $("curves-chart").replaceChildren(axes.svg);
  const used = verdicts.filter((verdict) => lines.some((run) => run.verdict === verdict));
  $("curves-legend").replaceChildren(...(byKnob
    ? levels.map((level, i) => key(colours[i], `${brief(coloured)}=${show(level)}`, dash(i)))
    : used.map((verdict) => key(colourOf(verdict), signs[verdict], VERDICT_DASH[verdict], verdict))));
  const drawn = lines.length < there.length ? t("{shown} of {all} runs drawn, evenly chosen. ", {shown: lines.length, all: there.length}) : "";
  $("curves-note").textContent = drawn + (byKnob
    ? t("Thick: the mean over all runs at that level, with its pointwise 95 % t interval; thin: each run.")
    : t("One line per run. Point at a line to read it, click to open it in the table."));
}

/** A run on its own: training and validation together, with the reason for its verdict. */
function aloneSection(run) {
  $("curves-controls").replaceChildren();
  $("curves-note").replaceChildren(chip(run.verdict, run.judged), `: ${run.sentence}${t(".")}`);
  $("curves-chart").replaceChildren(make("div", {class: "pair"}, ["loss", "accuracy"].map((name) => pairFigure(run, name, wide($("curves-chart")) / 2, 300))));
  $("curves-legend").replaceChildren(key("var(--val)", t("validation")), key("var(--train)", t("training"), "5 3"), key(colourOf(run.verdict), signs[run.verdict], null, run.verdict));
}

/** Training and validation of one run on one chart; null where neither was recorded. */
function pairFigure(run, name, width, height) {
  const sides = [[`train_${name}`, "var(--train)", "5 3"], [`val_${name}`, "var(--val)", ""]].filter(([side]) => run[side]);
  if (!sides.length) return null;
  const y = range(sides.flatMap(([side]) => settled(run[side])), false);
  const axes = frame({width: Math.max(width, 270), height, x: [run.x[0], run.x[run.x.length - 1]], y, xLabel: t(data.x_label), yLabel: t(name),
    written: isAccuracy(name) ? percentTick : show, label: `training and validation ${name} of ${run.name}`});
  for (const [side, stroke, dash] of sides) axes.plot.append(draw("path", {class: "line", d: path(axes, run.x, run[side]), stroke, "stroke-width": 2, "stroke-dasharray": dash}));
  markRun(axes, run, `val_${name}`, 5.5);
  return make("figure", {}, axes.svg);
}

function nearest(event, axes, lines, hover) {
  const box = axes.svg.getBoundingClientRect(), scale = axes.width / box.width;
  const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
  let best = null, least = 30;
  for (const run of lines) {
    const [x0, x1] = [axes.X(run.x[0]), axes.X(run.x[run.x.length - 1])];
    if (px < x0 - 5 || px > x1 + 5) continue;
    const x = run.x[0] + ((Math.min(Math.max(px, x0), x1) - x0) / (x1 - x0 || 1)) * (run.x[run.x.length - 1] - run.x[0]);
    const away = Math.abs(axes.Y(valueAt(run.x, run[state.curve], x)) - py);
    if (away < least) [best, least] = [run, away];
  }
  hover.run = best;
  hover.replaceChildren(...(best ? [draw("path", {class: "line", d: path(axes, best.x, best[state.curve]), stroke: "var(--ink)", "stroke-width": 2.2})] : []));
  $("curves-readout").replaceChildren(...(best ? [make("strong", {}, best.name), ` ${describe(best)} — `, chip(best.verdict), `: ${best.sentence}`] : []));
}

const describe = (run) => knobs.map((knob, i) => `${brief(knob)}=${show(run.knobs[i])}`).join(" ");
const chip = (verdict, judged) => make("span", {class: "chip", style: `--chip: ${colourOf(verdict)}`}, `${signOf[verdict]} ${judged || spelled[verdict]}`);

// ------------------------------------------------------------------ groups

function groupsSection() {
  $("groups").hidden = here().length < 2;
  const shown = part().groups.map((group) => ({...group, members: group.runs.map((i) => runs[i]).filter(seen)})).filter((group) => group.members.length);
  const many = 12, some = state.allGroups ? shown : shown.slice(0, many);
  $("groups-note").textContent = part().groups.length < here().length
    ? t("Runs that differ in the seed alone. Mean over seeds with its pointwise 95 % t interval, each seed thin; largest gap first.")
    : t("Each run on its own, largest gap first.");
  $("groups-legend").replaceChildren(key("var(--val)", t("validation loss")), key("var(--train)", t("training loss"), "5 3"));
  const finite = some.flatMap((group) => group.members.flatMap((run) => [...settled(run.val_loss || []), ...settled(run.train_loss)]));
  const y = range(finite, false);
  $("groups-charts").replaceChildren(...some.map((group) => groupFigure(group, y)));
  $("groups-more").hidden = shown.length <= many;
  $("groups-more").textContent = state.allGroups ? t("Show the first {n}", {n: many}) : t("Show all {n} groups", {n: shown.length});
  $("groups-more").onclick = () => { state.allGroups = !state.allGroups; groupsSection(); };
}

function ended(runs) {  // means are of these, in curves as in tables; of a group that all diverged, of all
  const kept = runs.filter((run) => run.verdict !== "diverged" && run.status !== "failed" && run.status !== "interrupted");
  return kept.length ? kept : runs;
}

function groupFigure(group, y) {
  const xs = group.members.flatMap((run) => [run.x[0], run.x[run.x.length - 1]]);
  const axes = frame({width: 270, height: 190, x: [Math.min(...xs), Math.max(...xs)], y, left: 34, xLabel: t(data.x_label), yLabel: t("loss"), label: `losses of ${group.name}`});
  for (const [name, colour, dash] of [["train_loss", "var(--train)", "5 3"], ["val_loss", "var(--val)", ""]]) {
    const lines = group.members.filter((run) => run[name]);
    if (!lines.length) continue;
    if (lines.length > 1) for (const run of spread(lines, 20)) axes.plot.append(draw("path", {class: "line", d: path(axes, run.x, run[name]), stroke: colour, opacity: 0.35, "stroke-width": 0.8}));
    const mean = average(ended(lines).map((run) => ({x: run.x, y: run[name]})), data.t975);
    axes.plot.append(draw("path", {d: band(axes, mean.x, mean.low, mean.high), fill: colour, opacity: 0.2}),
      draw("path", {class: "line", d: path(axes, mean.x, mean.mean), stroke: colour, "stroke-width": 2, "stroke-dasharray": dash}));
  }
  for (const run of spread(group.members, 20)) markRun(axes, run, "val_loss", 4);
  const gap = group.gap && group.gap.mean !== null ? t(", gap {value}", {value: `${show(group.gap.mean)}${group.gap.low === null ? "" : ` [${show(group.gap.low)}, ${show(group.gap.high)}]`}`}) : "";
  const counts = verdicts.map((verdict) => counted(verdict, group.runs.map((i) => runs[i]))).filter(Boolean).join(", ");
  return make("figure", {}, make("figcaption", {}, t(group.name), make("small", {}, counts + gap)), axes.svg);
}

// ------------------------------------------------------------------ gradients

function gradientsSection() {
  $("gradients").hidden = !data.gradients.length;
  if (!data.gradients.length) return;
  const chosen = data.gradients[state.gradient];
  $("gradients-note").textContent = data.gradients.length > 1
    ? t("Euclidean norm of each parameter's gradient before clipping, means over stretches of steps; one run of each of the groups with the most and the least gap.")
    : t("Euclidean norm of each parameter's gradient before clipping, means over stretches of steps; log scale.");
  $("gradients-controls").replaceChildren(select(t("run"), Object.fromEntries(data.gradients.map((item, i) => [i, `${runs[item.run].name} ${describe(runs[item.run])} (${spelled[runs[item.run].verdict]})`])),
    String(state.gradient), (value) => { state.gradient = Number(value); gradientsSection(); }));
  const layers = Object.keys(chosen.norms), isBias = (name) => name.endsWith("bias");
  const homes = [...new Set(layers.map((name) => name.replace(/\.[^.]*$/, "")))], ramp = levelColours(homes.map((_, i) => i));
  const colours = layers.map((name) => ramp[homes.indexOf(name.replace(/\.[^.]*$/, ""))]);
  const dash = (name) => DASHES[homes.indexOf(name.replace(/\.[^.]*$/, "")) % DASHES.length];
  const every = layers.flatMap((name) => chosen.norms[name]);
  const axes = frame({width: wide($("gradients-chart")), height: 300, x: [chosen.steps[0], chosen.steps[chosen.steps.length - 1]], y: range(every, true), logY: true,
    xLabel: t("step"), yLabel: t("gradient norm"), label: "gradient norms by layer"});
  layers.forEach((name, i) => axes.plot.append(draw("path", {class: "line", d: path(axes, chosen.steps, chosen.norms[name]), stroke: colours[i], "stroke-width": isBias(name) ? 0.9 : 2,
    "stroke-dasharray": dash(name)}, draw("title", {}, name))));
  $("gradients-chart").replaceChildren(axes.svg);
  $("gradients-legend").replaceChildren(...layers.map((name, i) => key(colours[i], name, dash(name), "line", isBias(name) ? 1 : 2.5)));
}
