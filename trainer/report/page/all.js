// All of the page, drawn once and after every change.

function commands() {
  $("commands-list").replaceChildren(...data.commands.map(([text, command]) => make("div", {}, make("p", {class: "muted"}, t(text)), make("pre", {}, command))),
    ...(data.problems.length ? [make("p", {class: "muted"}, t("Files that could not be used:")), make("pre", {}, data.problems.join("\n"))] : []));
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

if (Object.keys(data.words).length) document.documentElement.lang = "zh";
for (const heading of document.querySelectorAll("h2, #results-commands > summary")) heading.textContent = t(heading.textContent);
for (const one of ["title", "aria-label"]) $("theme").setAttribute(one, t("light or dark"));
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
