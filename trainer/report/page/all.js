// All of the page, drawn once and after every change.

function commands() {
  $("commands-list").replaceChildren(...data.commands.map(([text, command]) => make("div", {}, make("p", {class: "muted"}, text), make("pre", {}, command))),
    ...(data.problems.length ? [make("p", {class: "muted"}, "Files that could not be used:"), make("pre", {}, data.problems.join("\n"))] : []));
}

function update() {
  writeHash();
  drawAll();
}

function drawAll() {
  applyTheme();
  head();
  claimsSection();
  resultsSection();
  classesSection();
  curvesSection();
  groupsSection();
  knobsSection();
  effectsSection();
  gradientsSection();
  tableSection();
}

readHash();
drawAll();
commands();
contents();
$("theme").addEventListener("click", () => { state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"; update(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; });
addEventListener("afterprint", drawAll);
let pause = 0;
addEventListener("resize", () => { clearTimeout(pause); pause = setTimeout(drawAll, 150); });
