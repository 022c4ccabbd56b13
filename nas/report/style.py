"""How the page looks and the few lines that draw its plots; kept in Python so that no package can lack them.

Colors are set once, for light and dark. Plots take those of text and grid from here too, so they follow the reader's
scheme, also when it changes.
"""

STYLE = """
:root {
  --paper: #fff; --wash: #f4f6f8; --ink: #1a1f26; --soft: #56606c; --line: #d5dbe2; --strong: #9aa5b1;
  --blue: #1f6fc2; --blue-wash: #e9f2fb; --orange: #b3541a; --good: #19703b; --bad: #b3261e;
  --found: 47 129 214; --mistaken: 217 114 43;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --wash: #1c2229; --ink: #e4e8ed; --soft: #a2adb9; --line: #313a44; --strong: #5d6974;
    --blue: #6cb0f5; --blue-wash: #182a3d; --orange: #f0995b; --good: #5fc98a; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 96px; }
a { color: var(--blue); text-underline-offset: 2px; overflow-wrap: anywhere; }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: 32px; font-weight: 700; letter-spacing: -0.01em; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 21px; font-weight: 650; margin: 0 0 12px; }
h3 { font-size: 16px; font-weight: 650; margin: 28px 0 8px; overflow-wrap: anywhere; }
section { margin-top: 56px; padding-top: 20px; border-top: 2px solid var(--ink); }
p { margin: 0 0 12px; max-width: 75ch; }
ul { margin: 0 0 12px; padding-left: 20px; max-width: 85ch; }
li { overflow-wrap: anywhere; }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--wash); padding: 12px; margin: 8px 0; }
.eyebrow { color: var(--soft); margin-bottom: 4px; overflow-wrap: anywhere; }
.verdict { font-size: 19px; line-height: 1.4; max-width: 62ch; }
.small, .quiet { color: var(--soft); }
.small { display: block; font-size: 12.5px; line-height: 1.4; font-weight: 400; }
.line { display: block; }
.differs { color: var(--orange); }
.note { border-left: 3px solid var(--strong); padding-left: 12px; }
.tag {
  display: inline-block; border: 1px solid var(--line); border-radius: 3px; padding: 0 5px; color: var(--soft);
  font-size: 12px; line-height: 18px; font-weight: 500; letter-spacing: 0; white-space: nowrap; vertical-align: 1px;
}
.tag.good { color: var(--good); border-color: currentColor; }
.tag.caution { color: var(--orange); border-color: currentColor; }
.tag.bad { color: var(--bad); border-color: currentColor; }
h1 .tag { font-size: 14px; line-height: 22px; padding: 0 8px; vertical-align: 6px; }
.warnings { border: 1px solid var(--orange); border-radius: 4px; padding: 12px 16px 4px; margin: 20px 0; }
.warnings h2 { font-size: 15px; color: var(--orange); margin: 0 0 6px; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); margin: 24px 0; gap: 1px;
  background: var(--line); border-block: 1px solid var(--line); }
.key > div { background: var(--paper); padding: 14px 16px 14px 0; }
.key > div + div { padding-left: 16px; }
.key dt { color: var(--soft); font-size: 13.5px; }
.key dd { margin: 0; }
.key dd .small { display: inline; }
.key .value { font-size: 28px; font-weight: 650; letter-spacing: -0.01em; line-height: 1.3; }
.facts { margin: 0 0 16px; }
.facts > div { display: grid; grid-template-columns: 108px 1fr; padding: 5px 0; border-bottom: 1px solid var(--line); }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 24px; font-size: 14px; }
.scroll { overflow-x: auto; margin: 16px 0 28px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; min-width: 50%; }
caption { white-space: nowrap; text-align: left; font-weight: 650; padding: 0 0 8px; }
th, td { padding: 7px 16px 7px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 1px solid var(--strong); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
.left { text-align: left; }
.right { text-align: right; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
td a { overflow-wrap: normal; }
thead .tag { display: block; border: 0; padding: 0; }
.spec thead .tag { display: inline-block; border: 1px solid currentColor; padding: 0 5px; }
.spec, .stages { width: 100%; }
.spec th, .spec td { padding: 8px 14px; min-width: 150px; }
.spec th:first-child { padding-left: 0; position: sticky; left: 0; background: var(--paper); min-width: 190px; }
.spec td:nth-child(2), .spec thead th:nth-child(2) { background: var(--blue-wash); }
.spec thead th:nth-child(2) { border-top: 3px solid var(--blue); }
.spec td:nth-child(2) { font-weight: 600; }
.stages thead th, .stages td:nth-child(-n+4) { white-space: nowrap; }
.stages th:first-child { min-width: 170px; overflow-wrap: anywhere; }
.stages td:last-child { min-width: 260px; }
.stages ul { margin: 4px 0; font-size: 13px; color: var(--soft); }
.bar { display: block; width: 180px; height: 10px; margin-top: 6px; background: var(--wash); }
.fill { display: block; height: 100%; background: var(--blue); }
.fill.bad { background: var(--bad); }
.confusion { min-width: 0; font-size: 13px; }
.confusion th, .confusion td { padding: 0; }
.confusion tbody th { padding-right: 10px; max-width: 200px; overflow-wrap: anywhere; vertical-align: middle; }
.confusion thead th { vertical-align: bottom; }
.confusion td span { display: block; padding: 5px 8px; min-width: 34px; }
.upright { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 130px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; font-weight: 500; padding: 4px 0; margin: 0 auto; }
.confusion thead th.right { text-align: center; }
.found { background: rgb(var(--found) / calc(0.08 + 0.42 * var(--share))); }
.mistaken { background: rgb(var(--mistaken) / calc(0.12 + 0.55 * var(--share))); }
.zero { color: var(--strong); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 0 40px; }
.columns table { width: 100%; }
.columns .bar { width: 110px; }
.columns td { overflow-wrap: anywhere; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--blue); }
figure { margin: 16px 0 32px; overflow-x: auto; }
.plot { min-width: 560px; }
figcaption { margin-top: 8px; color: var(--soft); font-size: 13.5px; max-width: 85ch; }
.plot .main-svg text:not(.hoverlayer text) { fill: var(--ink) !important; }
.plot .xlines-above, .plot .ylines-above, .plot path.xtick, .plot path.ytick { stroke: var(--strong) !important; }
.plot .gridlayer path { stroke: var(--line) !important; }
@media (max-width: 640px) {
  main { padding: 24px 16px 64px; }
  h1 { font-size: 25px; }
  caption { white-space: normal; }
  .key { grid-template-columns: 1fr 1fr; }
  .key > div:nth-child(odd) { padding-left: 0; }
  .facts > div { grid-template-columns: 1fr; }
}
@media print {
  main { max-width: none; padding: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
  nav, .modebar-container { display: none !important; }
  .scroll, figure { overflow: visible; }
  tr, figure, .warnings, .key { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .bar, .fill, .found, .mistaken { print-color-adjust: exact; }
}
"""

SCRIPT = """
for (const data of document.querySelectorAll("script[data-plot]")) {
  const figure = JSON.parse(data.textContent);
  const place = document.getElementById(data.dataset.plot);
  const options = { responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"] };
  Plotly.newPlot(place, figure.data, figure.layout, options);
}
"""
