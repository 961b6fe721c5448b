"""The ablation as a page: every variant's figures, and what their differences over the seeds say.

A variant is compared with the base at the same seed, so both saw the same crops in the same order.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ismallnet.benchmark.page import short_commit, to_table
from ismallnet.benchmark.seeds import t_interval
from ismallnet.benchmark.variants import BASE, QUESTIONS, VARIANTS
from ismallnet.data.layouts import find_layout

if TYPE_CHECKING:
    from ismallnet.benchmark.store import Row
    from ismallnet.benchmark.variants import Run

Verdict = Literal["yes", "no", "not resolved"]
MARGIN = 1.0
"""Points of IoU: a gain is denied only where one this large is ruled out. Surely above 0, any gain counts."""
_RATES = {"iou": ("IoU", 1e2, 2), "niou": ("nIoU", 1e2, 2), "pd": ("Pd", 1e2, 2), "fa": ("Fa ×1e-6", 1e6, 1)}
"""Title of a column, its unit as a factor, its digits."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What a number of pairs says about a gain."""

    gains: Mapping[int, float]
    """By seed."""
    mean: float
    """nan without a pair, as the bounds are with fewer than two."""
    low: float
    high: float
    """Bounds of the 95 % interval of the mean by Student's t."""

    @property
    def verdict(self) -> Verdict:
        """`yes`: the interval is above 0. `no`: it is not, and it is below `MARGIN`. Else not resolved."""
        if self.low > 0:
            return "yes"
        return "no" if self.high < MARGIN else "not resolved"


def compare(base: Mapping[int, float], other: Mapping[int, float]) -> Paired:
    """Return the gain of the base on another, over the seeds that both have.

    Args:
        base: By seed, a rate in points.
        other: Likewise.
    """
    gains = {seed: base[seed] - other[seed] for seed in sorted(base.keys() & other.keys())}
    values = list(gains.values())
    mean = statistics.fmean(values) if values else math.nan
    return Paired(gains, mean, *t_interval(values))


def conclude(verdicts: Iterable[Verdict]) -> Verdict:
    """Answer whether the base is better than all: yes if every verdict is, no if any is."""
    found = set(verdicts)
    if "no" in found:
        return "no"
    return "yes" if found == {"yes"} else "not resolved"


def to_markdown(plan: Sequence[Run], rows: Sequence[Row], failed: Mapping[Run, str] | None = None) -> str:
    """Write the page: conditions, answers, differences, figures, costs, what failed and what was not run.

    Args:
        plan: All runs of the ablation.
        rows: Of ablation.csv. Those of another recipe than the plan's count as not run.
        failed: Runs of the plan without a row that failed, and why. What they were to answer is not resolved.
    """
    failed = failed or {}
    own = {(row["variant"], row["seed"], row["recipe_sha256"]): row for row in rows}
    done = {run: own[key] for run in plan if (key := (run.variant, str(run.seed), run.sha256)) in own}
    data = [find_layout(each.name).name for each in plan[0].recipe.data.sets]
    lines = ["# Ablation of the compact network", "", *_conditions(done, data)]
    if done:
        lines += _answers(plan, done, failed, data)
        for name in data:
            lines += ["", f"## {name}", "", *_figures(done, name)]
        lines += _costs(done)
    lines += _failures(failed) + _absent([run for run in plan if run not in failed], done, len(plan))
    return "\n".join(lines) + "\n"


def _conditions(done: Mapping[Run, Row], data: Sequence[str]) -> list[str]:
    if not done:
        return ["Nothing was run yet."]

    def of(column: str) -> list[str]:
        return list(dict.fromkeys(row[column] for row in done.values()))

    counts = ", ".join(f"{' or '.join(of(f'{name}_n'))} images of {name}" for name in data)
    dates = sorted(text[:10] for text in of("date"))
    return [
        f"Every variant changes one thing of the base recipe. All saw {' or '.join(of('images'))} crops in "
        f"{' or '.join(of('steps'))} steps, at the same seed the same crops in the same order. The last "
        f"averaged weights are judged on fold {', '.join(of('fold'))} of the train lists ({counts}), which "
        f"no run trained on, protocol `{', '.join(of('protocol'))}`; nothing is selected, no test list was "
        "opened. "
        "The networks are small and the runs short: the answers are about this setting.",
        "",
        f"Seeds {', '.join(sorted(of('seed'), key=int))}; {dates[0]} to {dates[-1]}; "
        f"commits {', '.join(map(short_commit, of('commit')))}; {'; '.join(of('hardware'))}.",
    ]


def _answers(
    plan: Sequence[Run], done: Mapping[Run, Row], failed: Iterable[Run], data: Sequence[str]
) -> list[str]:
    answers, details = [], []
    planned = {each: {run.seed for run in plan if run.variant == each} for each in VARIANTS}
    broken = {run.variant for run in failed}
    for question in QUESTIONS:
        answer = [f"**{question.name}.** {question.text}"]
        for name in data:
            base = _rates(done, BASE, name, "iou")
            found = {each: compare(base, _rates(done, each, name, "iou")) for each in question.variants}
            total = min(len(planned[BASE] & planned[each]) for each in found)
            whole = "not resolved" if broken & {BASE, *found} else conclude(p.verdict for p in found.values())
            answer.append(_marked(whole, min(len(p.gains) for p in found.values()), total))
            for each, paired in found.items():
                verdict = "not resolved" if broken & {BASE, each} else paired.verdict
                total = len(planned[BASE] & planned[each])
                cells = [*_cells(paired), _marked(verdict, len(paired.gains), total)]
                details.append([question.name, f"{BASE} − {each}", name, *cells])
        answers.append(answer)
    header = ["question", "difference", "data set", "n", "by seed", "mean", "95 % interval", "verdict"]
    return [
        "",
        "## Answers",
        "",
        *to_table(["question", *data], answers),
        "",
        "Yes is yes against every variant named, no is no against one of them. In points of pooled IoU, "
        "base minus variant at the same seed, with the 95 % interval of the mean by Student's t. *Yes*: the "
        f"interval is above 0. *No*: it is not, and it is below {MARGIN:g} point, so a gain of that much is "
        "ruled out. *Not resolved*: neither, or fewer than two seeds, or a run that failed. An answer from "
        "fewer seeds than planned says so, and is provisional. The rule was set before the runs; the "
        "intervals are not corrected for their number. They are over seeds, on one fold only: another fold "
        "or other images may answer otherwise.",
        "",
        *to_table(header, details),
    ]


def _cells(paired: Paired) -> list[str]:
    seeds = ", ".join(f"{gain:+.2f}" for gain in paired.gains.values()) or "–"
    mean = "–" if math.isnan(paired.mean) else f"{paired.mean:+.2f}"
    interval = "–" if math.isnan(paired.low) else f"[{paired.low:+.2f}, {paired.high:+.2f}]"
    return [str(len(paired.gains)), seeds, mean, interval]


def _marked(verdict: Verdict, found: int, planned: int) -> str:
    """A verdict, provisional where seeds are missing."""
    return verdict if found == planned else f"{verdict} ({found} of {planned} seeds)"


def _figures(done: Mapping[Run, Row], data: str) -> list[str]:
    lines = []
    for variant in dict.fromkeys(run.variant for run in done):
        columns = [
            _spread(_rates(done, variant, data, rate, unit).values(), digits)
            for rate, (_, unit, digits) in _RATES.items()
        ]
        n = sum(run.variant == variant for run in done)
        lines.append([variant, str(n), *columns])
    return to_table(["variant", "seeds", *(title for title, *_ in _RATES.values())], lines)


def _costs(done: Mapping[Run, Row]) -> list[str]:
    lines = []
    for variant in dict.fromkeys(run.variant for run in done):
        rows = [row for run, row in done.items() if run.variant == variant]
        lines.append(
            [
                variant,
                f"`{rows[0]['overrides']}`" if rows[0]["overrides"] else "",
                f"{int(rows[0]['parameters']):,}",
                f"{int(rows[0]['macs']) / 1e9:.2f}",
                f"{statistics.fmean(float(row['minutes']) for row in rows):.1f}",
            ]
        )
    header = ["variant", "otherwise than the base", "parameters", "GMAC at 256×256", "minutes a run"]
    note = "Minutes are by the clock on the wall: runs that shared a core with other work took longer."
    return ["", "## Costs", "", note, "", *to_table(header, lines)]


def _failures(failed: Mapping[Run, str]) -> list[str]:
    if not failed:
        return []
    note = "Not made again until the run's folder is deleted."
    lines = [f"- {run.variant}, seed {run.seed} (`{run.name}`): {why}" for run, why in failed.items()]
    return ["", f"## Failed: {len(failed)}", "", note, "", *lines]


def _absent(runs: Sequence[Run], done: Mapping[Run, Row], planned: int) -> list[str]:
    absent: dict[str, list[str]] = {}
    for run in runs:
        if run not in done:
            absent.setdefault(run.variant, []).append(str(run.seed))
    lines = [f"- {name}: seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" for name, seeds in absent.items()]
    total = sum(run not in done for run in runs)
    return ["", f"## Not run: {total} of {planned}", "", *(lines or ["Everything was run."])]


def _rates(
    done: Mapping[Run, Row], variant: str, data: str, rate: str, unit: float = 1e2
) -> dict[int, float]:
    """A rate by seed; without those where it is not defined."""
    values = {
        run.seed: unit * float(row[f"{data}_{rate}"]) for run, row in done.items() if run.variant == variant
    }
    return {seed: value for seed, value in values.items() if not math.isnan(value)}


def _spread(values: Iterable[float], digits: int) -> str:
    """Mean and standard deviation."""
    found = list(values)
    if not found:
        return "–"
    mean = f"{statistics.fmean(found):.{digits}f}"
    return f"{mean} ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else mean
