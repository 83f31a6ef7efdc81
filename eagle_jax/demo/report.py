"""report.html: what was trained, how well it reads, and whether looking helped.

Every number is taken from `Results`; the file holds its pictures and needs no network.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from eagle_jax.demo import curves, page
from eagle_jax.demo.progress import span
from eagle_jax.demo.results import Alone, Results, Sample, Stage
from eagle_jax.demo.score import MARGINS, Score, normal, shortfalls
from eagle_jax.errors import EagleError

_COUNTED = ("parameters", "trained", "decayed")


def write(results: Results, images: Path, path: Path) -> None:
  """Writes the report and, beside it, the results as JSON.

  Args:
    results: of one run.
    images: the folder that samples' image names are relative to.
    path: the HTML file; the JSON has the same name with another suffix.

  Raises:
    EagleError: if the picture of a sample is not there.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  path.with_suffix(".json").write_text(results.to_json(), encoding="utf-8")
  path.write_text(render(results, images), encoding="utf-8")


def render(results: Results, images: Path) -> str:
  """Returns the report as HTML."""
  total = sum(stage.seconds for stage in results.stages) + sum(results.seconds.values())
  test = sum(score.count for score in results.scores)
  lead = (
    f"{len(results.stages)} training runs, {test} questions about pictures that were never "
    f"trained on, {span(total)} in all (minutes and seconds)."
  )
  return page.page(
    results.title,
    (
      f'<h1>{html.escape(results.title)}</h1><p class="soft">{html.escape(lead)}</p>',
      _verdict(results.scores),
      page.section(
        "Where the weights come from",
        "What each part of the model began with, before stage 1.",
        page.facts(results.origins.items()),
      ),
      *([_alone(results.alone)] if results.alone else []),
      page.section(
        "Exact match",
        "Answers that are right to the letter. Blind is the same model, trained and asked with "
        "the mean colour in place of every picture; gain is sighted minus blind in points; "
        "majority always gives the commonest training answer.",
        _scores(results.scores),
      ),
      page.section(
        "Loss",
        "Mean over the answers' tokens of a batch; faint as measured, bold smoothed, the number "
        "is the last smoothed value.",
        _losses(results.stages),
      ),
      page.section(
        "What each stage trains",
        "Parameters by part of the model; frozen ones have no optimiser state.",
        _parameters(results.stages),
      ),
      page.section(
        "Samples", "Questions of the test part and what was answered.", _samples(results, images)
      ),
      page.section("Time", "Wall time, in minutes and seconds.", _times(results)),
      page.section("How it was run", "", page.facts(results.facts.items())),
    ),
  )


def _verdict(scores: Sequence[Score]) -> str:
  """Returns whether the pictures were shown to matter, and where not."""
  short = shortfalls(scores)
  margins = ", ".join(
    f"{s.task} {s.margin * 100:+.0f} (at least {MARGINS[s.task] * 100:.0f})"
    for s in scores
    if s.task in MARGINS
  )
  if not short:
    told = f"<p><b>The picture matters.</b> Sighted minus blind, in points: {margins}.</p>"
    return f'<div class="card verdict">{told}</div>'
  listed = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in short)
  return (
    '<div class="card verdict bad"><p><b>The picture is not shown to matter everywhere.</b></p>'
    f"<ul>{listed}</ul></div>"
  )


def _alone(alone: Alone) -> str:
  """Returns what the language model said to text alone, and how near it is to a reference."""
  return page.section(
    "The language model alone",
    f"Converted, not yet trained here: its logits are within {alone.difference:.1e} of "
    f"{alone.reference} (at most {alone.limit:g}), and it answers plain questions.",
    page.facts(alone.exchanges),
  )


def _scores(scores: Sequence[Score]) -> str:
  """Returns bars per task and the table behind them."""
  cards = "".join(
    f'<div class="card"><h3>{html.escape(s.task)}</h3>'
    + page.bars((("sighted", s.sighted, 0), ("blind", s.blind, 1), ("majority", s.majority, 5)))
    + "</div>"
    for s in scores
  )
  header = ("task", "questions", "sighted", "blind", "majority", "gain", "commonest")
  rows = (
    (
      html.escape(s.task),
      str(s.count),
      f"<b>{s.sighted:.1%}</b>",
      f"{s.blind:.1%}",
      f"{s.majority:.1%}",
      f'<span class="{"good" if s.margin > 0 else "bad"}">{s.margin * 100:+.1f}</span>',
      html.escape(s.commonest),
    )
    for s in scores
  )
  return f'<div class="cards">{cards}</div><br>{page.table(header, rows)}'


def _by_stage(stages: Sequence[Stage]) -> dict[str, list[Stage]]:
  """Returns stage name → its runs, in order of first mention."""
  grouped: dict[str, list[Stage]] = {}
  for stage in stages:
    grouped.setdefault(stage.stage, []).append(stage)
  return grouped


def _losses(stages: Sequence[Stage]) -> str:
  """Returns one panel of curves per stage name."""
  panels = (
    f'<div class="card"><h3>{html.escape(name)}</h3>'
    + curves.panel([curves.Curve(run.label, run.losses) for run in runs])
    + "</div>"
    for name, runs in _by_stage(stages).items()
  )
  return f'<div class="cards">{"".join(panels)}</div>'


def _parameters(stages: Sequence[Stage]) -> str:
  """Returns a table of the parts' parameters, runs that train the same told once."""
  told: dict[tuple[object, ...], list[Stage]] = {}
  for stage in stages:
    told.setdefault((stage.stage, stage.parts), []).append(stage)
  return page.table(
    ("part", "parameters", "trained", "decayed", "rate ×"),
    (row for runs in told.values() for row in _parameter_rows(runs)),
  )


def _parameter_rows(runs: Sequence[Stage]) -> Iterator[tuple[str, ...]]:
  """Yields the rows of runs that train the same: heading, parts, sum."""
  yield (html.escape(f"{runs[0].stage} ({', '.join(run.label for run in runs)})"),)
  for part in runs[0].parts:
    yield (
      html.escape(part.part),
      f"{part.parameters:,}",
      f'<b class="good">{part.trained:,}</b>'
      if part.trained
      else '<span class="soft">frozen</span>',
      f"{part.decayed:,}" if part.decayed else "",
      f"{part.lr:g}" if part.trained else "",
    )
  sums = [sum(getattr(part, name) for part in runs[0].parts) for name in _COUNTED]
  yield ("<b>together</b>", *(f"<b>{value:,}</b>" for value in sums), "")


def _samples(results: Results, images: Path) -> str:
  """Returns pictures with question, truth and answers."""
  figures = "".join(_sample(sample, images / sample.image) for sample in results.samples)
  return f'<div class="samples">{figures}</div>'


def _sample(sample: Sample, path: Path) -> str:
  """Returns one picture, held in the page itself, and what was said of it."""
  if not path.is_file():
    raise EagleError(f"the report shows {sample.image!r}, which is not in {str(path.parent)!r}")
  encoded = base64.b64encode(path.read_bytes()).decode("ascii")
  told = html.escape(sample.question)
  return (
    f'<figure class="card"><img alt="{html.escape(sample.task)}: {told}" '
    f'src="data:image/png;base64,{encoded}"><figcaption>{told}<br>'
    f"{_answer('sighted', sample.sighted, sample.truth)}<br>"
    f"{_answer('blind', sample.blind, sample.truth)}<br>"
    f"truth <b>{html.escape(sample.truth)}</b></figcaption></figure>"
  )


def _answer(who: str, answer: str, truth: str) -> str:
  """Returns an answer marked as right or wrong, not by its colour alone."""
  right = normal(answer) == normal(truth)
  kind, mark = ("good", "✓") if right else ("bad", "✗")
  return f'{who} <b class="{kind}">{html.escape(answer) or "(nothing)"} {mark}</b>'


def _times(results: Results) -> str:
  """Returns a table of what took how long."""
  rows = [
    (
      html.escape(f"{run.stage} ({run.label})"),
      str(run.losses[-1][0]) if run.losses else "",
      str(run.batch_size),
      span(run.seconds),
    )
    for run in results.stages
  ]
  rows += [(html.escape(name), "", "", span(spent)) for name, spent in results.seconds.items()]
  return page.table(("what", "last step", "rows a step", "time"), rows)
