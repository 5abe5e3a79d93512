// The table of runs, and the evidence of each.

const COLUMNS = [
  {id: "name", title: t("run"), value: (run) => run.name},
  ...knobs.map((knob, i) => ({id: knob, title: t(brief(knob)), value: (run) => run.knobs[i]})),
  {id: "verdict", title: t("verdict"), value: (run) => verdicts.indexOf(run.verdict)},
  {id: "best_epoch", title: t(data.best_at), number: true, value: (run) => run.best_epoch},
  {id: "onset", title: t("onset"), number: true, value: (run) => run.onset},
  ...Object.entries(data.measures)
    .filter(([id]) => runs.some((run) => run.measures[id] !== undefined))
    .map(([id, [title]]) => ({id, title: t(title), number: true, percent: isAccuracy(id), value: (run) => run.measures[id]})),
];
if (runs.some((run) => run.status && run.status !== "completed")) COLUMNS.push({id: "status", title: t("status"), value: (run) => run.status || ""});

function order(a, b) {
  const column = COLUMNS.find((one) => one.id === state.sort);
  if (!column) return 0;
  const [x, y] = [column.value(a), column.value(b)];
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(x) || missing(y)) return Number(missing(x)) - Number(missing(y));
  return (state.descending ? -1 : 1) * natural(x, y);
}

function tableSection() {
  if (!$("runs-controls").children.length) {
    $("runs-controls").append(make("input", {id: "filter", type: "search", placeholder: t("filter: words such as adam dropout=0.5 overfit"), value: state.text, "aria-label": t("filter"),
      oninput: (event) => { state.text = event.target.value; update(); }}));
  }
  $("table").tHead.replaceChildren(make("tr", {}, COLUMNS.map((column) => make("th", {
    class: column.number ? "number" : null, scope: "col", "aria-sort": state.sort !== column.id ? null : state.descending ? "descending" : "ascending"},
    make("button", {type: "button", onclick: () => { state.descending = state.sort === column.id && !state.descending; state.sort = column.id; update(); }}, column.title)))));
  const shown = here().filter(seen).sort(order), most = 1000;
  $("table").tBodies[0].replaceChildren(...shown.slice(0, most).flatMap((run) => state.open.has(run) ? [row(run), details(run)] : [row(run)]));
  $("table-note").textContent = `${data.words["{shown} of {all} runs"] ? t("{shown} of {all} runs", {shown: shown.length, all: here().length}) : `${shown.length} of ${plural(here().length, "run")}`}${shown.length > most ? t(", the first {most} listed: sort or filter to see others", {most}) : ""}${t(". ")}${t("Open a run for its evidence, its command and its files.")}`;
}

function toggle(run) {
  if (!state.open.delete(run)) state.open.add(run);
  writeHash();
  tableSection();
  document.querySelector(`tr[data-run="${run.index}"] button`).focus({preventScroll: true});
}

function row(run) {
  const opens = make("button", {type: "button", "aria-expanded": String(state.open.has(run)), "aria-controls": state.open.has(run) ? `run-${run.index}` : null,
    onclick: (event) => { event.stopPropagation(); toggle(run); }}, run.name);
  const cells = COLUMNS.map((column) => {
    if (column.id === "name") return make("td", {class: "name", title: run.path}, opens);
    if (column.id === "verdict") return make("td", {}, chip(run.verdict, run.judged));
    return make("td", {class: column.number ? "number" : null}, column.percent ? percent(column.value(run)) : show(column.value(run)));
  });
  return make("tr", {class: "run", "data-run": run.index, onclick: () => toggle(run)}, cells);
}

function details(run) {
  const evidence = Object.entries(run.evidence).map(([name, value]) => make("div", {}, make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, /accuracy/.test(name) ? percent(value) : show(value))));
  const links = [...(run.link ? [[t("folder"), run.link]] : []), ...run.files].map(([text, link]) => make("a", {href: link}, text));
  const charts = ["loss", "accuracy"].map((name) => pairFigure(run, name, Math.min(500, wide($("runs")) - 60), 220));
  const config = {...data.common, ...run.config};
  return make("tr", {class: "details", id: `run-${run.index}`}, make("td", {colspan: COLUMNS.length},
    make("p", {}, chip(run.verdict, run.judged), `: ${run.sentence}${t(".")}`),
    here().length > 1 ? make("div", {class: "pair"}, charts) : null,
    here().length > 1 ? make("div", {class: "legend"}, key("var(--val)", t("validation")), key("var(--train)", t("training"), "5 3")) : null,
    [...run.health, ...run.notes].map((text) => make("p", {class: "muted"}, text)),
    run.command ? make("pre", {}, run.command) : null,
    links.length ? make("p", {}, links) : null,
    make("details", {}, make("summary", {}, t("every number behind the verdict")), make("dl", {}, evidence)),
    Object.keys(config).length ? make("details", {}, make("summary", {}, t("configuration")), make("pre", {}, Object.keys(config).sort().map((name) => `${name}: ${show(config[name])}`).join("\n"))) : null));
}

function focusRun(run) {
  state.open.add(run);
  writeHash();
  tableSection();
  const found = document.querySelector(`tr[data-run="${run.index}"]`);
  if (found) found.scrollIntoView({block: "center"});
}

