"""The fixed parts of the HTML report: page, style, the few lines of script that draw the charts, the glossary."""

from __future__ import annotations


def page(kind: str, body: str, style: str = "") -> str:
    """A whole page with charts, as a template: `body` is its header and main part, `style` comes on top of CSS."""
    return _SHELL.replace("@KIND@", kind).replace("@STYLE@", style).replace("@BODY@", body.strip())


# Without 'unsafe-eval': vegaEmbed interprets expressions itself (`ast`). Nothing may be loaded from anywhere.
_SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title – groklab @KIND@</title>
<style>$css@STYLE@</style>
</head>
<body>
@BODY@
<script type="application/json" id="payload">$payload</script>
<script>$library</script>
<script>$script</script>
</body>
</html>
"""

PAGE = page(
    "report",
    """
<header>
<p class="kicker">groklab report</p>
<h1>$title</h1>
$description
<p class="facts">$facts</p>
</header>
<main>
<section class="verdict" aria-label="Verdict"><p class="lead">$lead</p><p>$sentences</p></section>
<section><h2>Arms</h2>$arms</section>
<section><h2>Comparison with the baseline</h2>$comparisons</section>
<section><h2>Curves</h2><noscript><p>The charts need JavaScript; the tables do not.</p></noscript>
<p class="note">Every line is one run. Curves begin at the first evaluation after step 0, which a log axis cannot show.
Click an arm in a legend to single it out, click beside it to see all again.</p>
<div class="figures">$figures</div></section>
<section><h2>Runs</h2>$runs</section>
<div class="columns">
<section><h2>Definitions</h2>$definitions</section>
<section><h2>Words used here</h2><dl>$glossary</dl></section>
</div>
<section><h2>How to repeat it</h2>$reproduce</section>
<section class="versions"><h2>Software</h2>$versions</section>
</main>
""",
)

SCRIPT = """
const {specs, datasets} = JSON.parse(document.getElementById("payload").textContent);
window.charts = Promise.all(specs.map((spec, i) => {
  const place = document.getElementById("chart-" + i);
  const options = {mode: "vega-lite", renderer: "svg", actions: false, ast: true};
  return vegaEmbed(place, {...spec, datasets}, options).catch(error => {
    place.textContent = "This chart cannot be drawn: " + error.message;
    throw error;
  });
}));
"""

CSS = """
:root { --page:#fbfbfa; --card:#fff; --ink:#1d2127; --soft:#5b6470; --line:#e2e4e8; --accent:#0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --page:#14171c; --card:#1b1f26; --ink:#e4e7eb; --soft:#9aa4b1; --line:#313843; --accent:#56b4e9; }
}
@media print { :root { --page:#fff; --card:#fff; --ink:#000; --soft:#444; --line:#bbb; --accent:#0072b2; } }
* { box-sizing:border-box; }
body { margin:0 auto; max-width:1120px; padding:2rem 1.25rem 4rem; background:var(--page); color:var(--ink);
  font:16px/1.55 "Liberation Sans", Arial, Helvetica, sans-serif; -webkit-text-size-adjust:100%; }
h1 { font-size:2rem; line-height:1.2; margin:.1em 0 .3em; overflow-wrap:anywhere; }
h2 { font-size:1.2rem; margin:2.4rem 0 .7rem; }
h3 { font-size:1rem; margin:0 0 .5rem; }
header p { margin:.2rem 0; }
.kicker { color:var(--accent); font-weight:bold; font-size:.85rem; letter-spacing:.04em; }
.facts, .note, figcaption { color:var(--soft); font-size:.87rem; overflow-wrap:anywhere; }
.note, figcaption { margin:.5rem 0 0; max-width:80ch; }
.verdict { margin-top:1.5rem; padding:1rem 1.25rem; background:var(--card); border:1px solid var(--line);
  border-left:4px solid var(--accent); border-radius:6px; }
.verdict p { margin:0; max-width:85ch; overflow-wrap:anywhere; }
.verdict .lead { font-size:1.15rem; font-weight:bold; margin-bottom:.35rem; }
.scroll { overflow-x:auto; background:var(--card); border:1px solid var(--line); border-radius:6px; }
table { border-collapse:collapse; width:100%; font-size:.9rem; font-variant-numeric:tabular-nums; }
th, td { padding:.45rem .55rem; text-align:right; vertical-align:baseline;
  white-space:nowrap; border-top:1px solid var(--line); }
thead th { border-top:0; color:var(--soft); font-weight:normal; }
tbody th { font-weight:bold; white-space:normal; overflow-wrap:anywhere; min-width:9rem; }
.text { text-align:left; }
.swatch { display:inline-block; width:.8em; height:.8em; border-radius:2px; margin-right:.5em; vertical-align:-.05em; }
.status { padding:.05rem .5rem; border:1px solid var(--line); border-radius:1em; }
.status.grokked { border-color:#009e73; } .status.diverged { border-color:#d55e00; }
small { color:var(--soft); } sub { font-size:.75em; line-height:0; }
.figures { margin-top:.8rem; display:grid; gap:1rem;
  grid-template-columns:repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
figure { margin:0; padding:1rem; min-width:0; background:var(--card); border:1px solid var(--line); border-radius:6px; }
.chart { width:100%; min-height:300px; color:var(--ink); }
.columns { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap:0 2.5rem; }
dl { margin:0; } dt { font-weight:bold; } dd { margin:0 0 .6rem; }
pre { overflow-x:auto; padding:.8rem 1rem; background:var(--card); border:1px solid var(--line); border-radius:6px;
  font-size:.87rem; line-height:1.45; }
summary { cursor:pointer; margin-bottom:.5rem; color:var(--soft); }
.versions .scroll { max-width:24rem; }
@media print { body { max-width:none; padding:0; font-size:12px; } figure, tr, .verdict { break-inside:avoid; }
  .figures { grid-template-columns:1fr 1fr; } }
"""

GLOSSARY = {
    "Grokking": "generalising long after memorising: train accuracy is perfect early, held-out accuracy follows late "
    "and rather suddenly.",
    "Held-out set": "the examples of the task that the network never trains on.",
    "Arm, run, seed": "an arm is one way to train; a run is one arm with one seed. Runs of equal seed share data "
    "split, initial weights and batch order in all arms, which makes them a pair.",
    "Censored": "a run that ended before it grokked. Its time is known only to be longer than that, and it "
    "counts as such.",
    "Kaplan-Meier curve": "the share of runs that have not grokked yet, estimated with the censored runs included.",
    "Interval, p-value": "the interval is the range of values the runs are compatible with; the p-value is how often "
    "chance alone would show a difference at least this large. Holm's correction pays for asking several times.",
}
