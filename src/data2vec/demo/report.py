"""The demo's report: one HTML page that needs nothing from anywhere else."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape

import data2vec
from data2vec.demo.charts import HUES, Line, line_chart, scatter, score_chart
from data2vec.demo.outcome import Outcome, percent

_ABOUT: Mapping[str, str] = {
    "speech": "Twenty words, each said once in every voice of espeak-ng, in five accents, at random speed and pitch. "
    "The question to the probe is which word; the voices it is asked about, and their relatives, were never heard in "
    "pre-training.",
    "images": "Handwritten digits of 8 × 8 pixels from thirteen writers, as scikit-learn carries them. The question is "
    "which digit.",
    "text": "Docstrings of Python’s standard library and the topics of <code>help()</code>. The question is which "
    "chapter of the library reference a docstring belongs to; those that it is asked about are not in the corpus.",
}

_STYLE = """
:root { color-scheme: light dark; --paper: #fdfcfa; --ink: #1d1c1a; --soft: #6f6b64; --hair: #e4e0d8; --v1: #2f5fb3;
  --v2: #c05a1c; --light: 56%; --chroma: .125; }
@media (prefers-color-scheme: dark) { :root { --paper: #161719; --ink: #e9e6e0; --soft: #97938b; --hair: #2e3033;
  --v1: #7fa6ea; --v2: #e69157; --light: 74%; --chroma: .115; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Inter, Roboto, "Helvetica Neue", sans-serif;
  -webkit-font-smoothing: antialiased; }
main { max-width: 880px; margin: 0 auto; padding: 72px 28px 96px; }
h1 { font-size: 40px; line-height: 1.1; letter-spacing: -.022em; font-weight: 650; margin: 0 0 14px; }
h2 { font-size: 25px; letter-spacing: -.014em; font-weight: 630; margin: 0 0 6px; }
h3 { font-size: 13px; font-weight: 600; margin: 0 0 4px; }
p { margin: 0 0 14px; max-width: 66ch; }
.lead { font-size: 18px; line-height: 1.5; color: var(--soft); }
.note, figcaption, footer { font-size: 13px; line-height: 1.5; color: var(--soft); }
.note { margin-top: 12px; }
section { border-top: 1px solid var(--hair); margin-top: 60px; padding-top: 28px; }
code, pre { font: 13px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { overflow-x: auto; margin: 22px 0 0; padding: 12px 0 0; border-top: 1px solid var(--hair); color: var(--soft); }
.row { display: grid; gap: 26px; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); margin-top: 22px; }
figure { margin: 0; }
figcaption { margin-top: 4px; }
table { border-collapse: collapse; width: 100%; margin-top: 28px; font-variant-numeric: tabular-nums; font-size: 14px; }
th { font-weight: 500; color: var(--soft); font-size: 13px; }
th, td { text-align: right; padding: 7px 0 7px 14px; border-bottom: 1px solid var(--hair); white-space: nowrap; }
thead tr:first-child th { border: 0; padding-bottom: 0; color: var(--ink); }
tbody td:first-child { font-weight: 600; }
tbody tr:not(:last-child):has(+ tr > td:first-child:empty) td { border-bottom-color: transparent; }
tr > :first-child, tr > :nth-child(2):not([colspan]) { text-align: left; padding-left: 0; }
td.best { font-weight: 620; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
svg.scores { margin-top: 34px; }
svg.scores text { font-size: 13px; }
svg .name { fill: var(--ink); font-size: 15px; font-weight: 600; }
svg .value { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--hair); stroke-width: 1; }
.chance { stroke: var(--soft); stroke-width: 1.5; }
.gain { stroke-width: 3; stroke: var(--v1); }
.gain.v2 { stroke: var(--v2); }
.before { fill: var(--paper); stroke: var(--soft); stroke-width: 2; }
.after { fill: var(--v1); }
.after.v2 { fill: var(--v2); }
.curve { fill: none; stroke: var(--v1); stroke-width: 1.8; stroke-linejoin: round; }
.curve.v2 { stroke: var(--v2); }
.curve.dashed { stroke-dasharray: 2 3; }
.cloud { border: 1px solid var(--hair); border-radius: 8px; }
.cloud text { font-size: 10px; font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin-top: 10px; font-size: 13px; color: var(--soft); }
.legend span::before { content: ""; display: inline-block; width: 9px; height: 9px; border-radius: 50%;
  margin-right: 6px; background: var(--c); }
.legend .line::before { width: 16px; height: 0; border-radius: 0; border-top: 2px solid var(--c);
  vertical-align: middle; background: none; }
.legend .dashed::before { border-top-style: dotted; }
@media (max-width: 640px) { main { padding: 40px 18px 64px; } h1 { font-size: 31px; }
  .row { grid-template-columns: 1fr; } .wide { overflow-x: auto; } .wide > * { min-width: 600px; } }
"""


def page(outcomes: Sequence[Outcome], minutes: float) -> str:
    """The report as HTML.

    Args:
        outcomes: of all runs; those of one modality stand side by side.
        minutes: what the demo took.
    """
    modalities = list(dict.fromkeys(each.modality for each in outcomes))
    sections = [_section(name, [each for each in outcomes if each.modality == name]) for name in modalities]
    hues = "".join(f".k{k}{{fill:{_hue(k)}}}" for k in range(HUES))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>data2vec: what was learned</title>
<style>{_STYLE}{hues}</style>
</head>
<body>
<main>
<h1>One method, three senses</h1>
<p class="lead">data2vec hides parts of its input and learns to predict what a slow copy of itself makes of the whole.
Nobody told it what is in the data. Then its features were frozen and asked.</p>
{score_chart(outcomes)}
<p class="note">Share of held-out items that a linear probe on frozen features names rightly: ring, the same network
untrained; disc, after pre-training; tick, chance.</p>
<div class="wide">{_table(outcomes)}</div>
<p class="note">± is the standard error from the number of held-out items. Features, the probe’s strength and the number
of neighbours are chosen by cross-validation on the training items alone.</p>
{"".join(sections)}
<section><footer>Made in {minutes:.1f} minutes on {date.today():%d %B %Y} with data2vec {data2vec.__version__},
Python {platform.python_version()}, {escape(platform.machine())}. One thread a run; all runs had the same CPU
time.</footer></section>
</main>
</body>
</html>
"""


def _table(outcomes: Sequence[Outcome]) -> str:
    heads = """<tr><th></th><th></th><th colspan="2">linear probe</th><th colspan="2">nearest neighbours</th><th></th>
<th></th><th></th></tr><tr><th></th><th></th><th>untrained</th><th>pre-trained</th><th>untrained</th><th>pre-trained</th>
<th>parameters</th><th>updates</th><th>CPU s</th></tr>"""
    rows = []
    for number, each in enumerate(outcomes):
        name = each.modality if not number or outcomes[number - 1].modality != each.modality else ""
        scores = [
            f"<td>{percent(score.before)}</td><td class='best'>{percent(score.after)} ± {100 * score.error:.1f}</td>"
            for score in (each.linear, each.neighbours)
        ]
        size = f"<td>{each.parameters / 1e6:.2f} M</td><td>{each.updates:,}</td><td>{each.seconds:.0f}</td>"
        rows.append(f"<tr><td>{name}</td><td>{each.method}</td>{''.join(scores)}{size}</tr>")
    return f"<table><thead>{heads}</thead><tbody>{''.join(rows)}</tbody></table>"


def _section(modality: str, runs: Sequence[Outcome]) -> str:
    trained, asked = runs[0].items
    labels = sorted({point.label for point in runs[0].after})
    colours = {label: k for k, label in enumerate(labels[:HUES])}
    shown = "" if len(labels) <= HUES else f" {HUES} of the {len(labels)} classes are drawn."
    clouds = [_figure("Untrained", scatter(runs[0].before, colours))]
    clouds += [_figure(_after(each, len(runs)), scatter(each.after, colours)) for each in runs]
    names = "".join(f'<span style="--c:{_hue(k)}">{escape(label)}</span>' for label, k in colours.items())
    return f"""
<section>
<h2>{modality.capitalize()}</h2>
<p>{_ABOUT[modality]}</p>
<div class="row" style="--columns:{max(2, len(clouds))}">{"".join(clouds)}</div>
<div class="legend">{names}</div>
<p class="note">Held-out items in the features, squeezed into two dimensions by t-SNE, which knows no labels.{shown}
{trained:,} items trained the probe, {asked:,} were asked; {runs[0].classes} classes.</p>
<div class="row" style="--columns:3">{"".join(_curves(runs))}</div>
{_key(runs)}
<pre>{escape(chr(10).join(each.command for each in runs))}</pre>
</section>"""


def _curves(runs: Sequence[Outcome]) -> list[str]:
    def lines(name: str, style: str = "") -> list[Line]:
        return [Line(_column(run, "seconds"), _column(run, name), f"{run.method} {style}") for run in runs]

    variances = line_chart([*lines("target_var"), *lines("pred_var", "dashed")], floor=0)
    return [
        _figure("Loss", line_chart(lines("loss"), floor=0)),
        _figure("Variance", variances, "Solid: targets. Dashed: predictions. Near 0 is collapse."),
        _figure(
            "Position share",
            line_chart(lines("position_share"), floor=0, ceiling=1),
            "Of the targets. Near 1 is collapse.",
        ),
    ]


def _key(runs: Sequence[Outcome]) -> str:
    if len(runs) == 1:
        return ""
    return f'<div class="legend">{"".join(_method(run.method) for run in runs)}</div>'


def _method(name: str) -> str:
    return f'<span class="line" style="--c:var(--{name})">data2vec {name}</span>'


def _after(run: Outcome, runs: int) -> str:
    return "Pre-trained" if runs == 1 else f"Pre-trained, {run.method}"


def _figure(title: str, drawing: str, caption: str = "") -> str:
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{title}</h3>{drawing}{below}</figure>"


def _column(run: Outcome, name: str) -> list[float]:
    values = [record.get(name) for record in run.records]
    return [math.nan if value is None else value for value in values]


def _hue(k: int) -> str:
    return f"oklch(var(--light) var(--chroma) {(k * 360 / HUES * 3 + 255) % 360:.0f})"
