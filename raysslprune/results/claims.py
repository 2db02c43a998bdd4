"""The paper's sentences as tests on a table, paired over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import pyarrow as pa

from raysslprune.results.chance import Chance, is_near
from raysslprune.results.inference import CONFIDENCE, LEVEL, POWER, Evidence, at_each, benjamini_hochberg, holm, weigh
from raysslprune.results.tables import column, looks_of, pruned_percent
from raysslprune.sweepfile import Claim, Curve, Dense

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
VERDICTS = (HOLDS, CONTRADICTED, UNDECIDED)
MIN_SEEDS = 3

TOO_FEW = f"too few seeds: a verdict needs {MIN_SEEDS}"
APART = "the curves share no density with points for every seed"
"""Reasons why a claim can't be told."""

MAX_DENSITIES = 3
"""Maximum number of densities that are listed in words; of more, the first and the last are named."""

_DENSITIES = pa.list_(pa.field("element", pa.float64()))  # Parquet's name, so that the type survives it

CLAIMS = pa.schema(
    [
        column("panel", pa.string(), "part of the figure; empty: there is only one, or the claim compares panels"),
        column("says", pa.string(), "the claim"),
        column("source", pa.string(), "where the paper says so"),
        column("higher", pa.string(), "the side from which the other is subtracted"),
        column("lower", pa.string(), "the side that is subtracted"),
        column(
            "relation", pa.string(), "what must be true of the difference: above, not worse, equal, widens, narrows"
        ),
        column("tested_at", pa.string(), "mean over the densities, or each of them"),
        column("along", pa.string(), "where the difference widens or narrows: along density, or panels"),
        column("margin", pa.float64(), "points that do not matter; null: the relation has no margin", nullable=True),
        column("densities", _DENSITIES, "where the sides are compared: fractions left"),
        column("n", pa.int64(), "seeds compared"),
        column("effect", pa.float64(), "higher minus lower, or its change, in points; null: no data", nullable=True),
        column("sd", pa.float64(), "sample standard deviation of the effect over seeds", nullable=True),
        column("low", pa.float64(), "lower end of the effect's 90% interval", nullable=True),
        column("high", pa.float64(), "upper end of the effect's 90% interval", nullable=True),
        column("p_true", pa.float64(), "p-value of the relation; null: too few seeds, here and below", nullable=True),
        column("p_false", pa.float64(), "p-value of the opposite", nullable=True),
        column(
            "holm", pa.float64(), "the smaller p-value, adjusted for all claims of the sweep by Holm", nullable=True
        ),
        column("benjamini_hochberg", pa.float64(), "the same by Benjamini and Hochberg", nullable=True),
        column("level", pa.float64(), "holm must be below this for a verdict other than undecided"),
        column("detectable", pa.float64(), "points that the test finds with a power of 80%", nullable=True),
        column("verdict", pa.string(), "holds, contradicted or undecided"),
        column("labels", pa.string(), "samples with labels that the sides have seen, if these differ; else empty"),
        column("warning", pa.string(), "that the dense network is near chance, so that this shows little; else empty"),
    ]
)
"""Columns of :func:`table`."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a claim.

    verdict: HOLDS or CONTRADICTED if the test of the relation, or of its opposite, is significant after Holm's
        correction for all claims of the sweep; otherwise UNDECIDED.
    panel: empty if there is only one.
    densities: where the curves are compared. seeds: number of seeds compared.
    evidence: None if there are fewer than MIN_SEEDS seeds, or no density in common.
    holm, benjamini_hochberg: p-values, adjusted: of the relation or, if it is the smaller, of its opposite.
    level: what ``holm`` must be below.
    labels: samples with labels that the sides have seen, in words, if these differ.
    warning: in words, that the dense network is near chance (:func:`near_chance`); else empty.
    """

    claim: Claim
    verdict: str = UNDECIDED
    panel: str = ""
    densities: tuple[float, ...] = ()
    seeds: int = 0
    effect: float | None = None
    evidence: Evidence | None = None
    holm: float = 1.0
    benjamini_hochberg: float = 1.0
    level: float = LEVEL
    labels: str = ""
    warning: str = ""

    @property
    def numbers(self) -> str:
        """The effect and the test, in words: one sentence."""
        return "; ".join(self.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of :attr:`numbers`: the effect with its interval, the test with its power, the labels."""
        return tuple(filter(None, (self._measured, self._tested, self.labels)))

    @property
    def untold(self) -> str:
        """Why the claim can't be told, whatever the values are; empty if it was tested."""
        return "" if self.evidence else APART if self.effect is None else TOO_FEW

    @property
    def _measured(self) -> str:
        if self.effect is None:
            return APART
        found = self.evidence
        interval = f" ({CONFIDENCE:.0%} interval {found.low:+.2f} to {found.high:+.2f})" if found else ""
        return f"{self._quantity} {self.effect:+.2f} points{interval} at {self._where} % pruned, n = {self.seeds}"

    @property
    def _tested(self) -> str:
        found = self.evidence
        if found is None:
            return "" if self.effect is None else TOO_FEW
        opposite = "of the opposite, " if found.p_false < found.p_true else ""
        return (
            f"{self._test}: {opposite}p = {min(found.p_true, found.p_false):.3g} "
            f"(Holm {self.holm:.3g}{'' if self.level == LEVEL else f' at a level of {self.level:g}'}, "
            f"Benjamini-Hochberg {self.benjamini_hochberg:.3g}); "
            f"finds {found.detectable:.2f} points with {POWER:.0%} power"
        )

    @property
    def _where(self) -> str:
        pruned = [pruned_percent(density) for density in self.densities]
        if len(pruned) <= MAX_DENSITIES:
            return ", ".join(pruned)
        return f"{len(pruned)} densities from {pruned[0]} to {pruned[-1]}"

    @property
    def _quantity(self) -> str:
        if self.claim.relation in CHANGES:
            return "change of the difference"
        return "weakest difference" if self.claim.at == "each" and len(self.densities) > 1 else "mean difference"

    @property
    def _test(self) -> str:
        margin = f"{self.claim.margin:g}"
        match self.claim.relation:
            case "equal":
                return f"two one-sided paired t-tests against ±{margin}"
            case "not worse":
                return f"one-sided paired t-test against -{margin}"
            case _:
                return "one-sided paired t-test"


def table(verdicts: Iterable[Verdict]) -> pa.Table:
    """Return the verdicts as a table (CLAIMS): a row for each claim and panel."""
    return pa.Table.from_pylist([_row(verdict) for verdict in verdicts], schema=CLAIMS)


def _row(verdict: Verdict) -> dict[str, Any]:
    claim, evidence = verdict.claim, verdict.evidence
    row = {name: getattr(claim, name) for name in ("says", "source", "relation", "along")}
    row |= {
        name: getattr(verdict, name)
        for name in ("panel", "densities", "effect", "level", "verdict", "labels", "warning")
    }
    row |= {"higher": str(claim.higher), "lower": str(claim.lower), "tested_at": claim.at}
    row |= {"margin": claim.margin or None, "n": verdict.seeds}
    if evidence:
        row |= {name: getattr(evidence, name) for name in ("sd", "low", "high", "p_true", "p_false", "detectable")}
        row |= {"holm": verdict.holm, "benjamini_hochberg": verdict.benjamini_hochberg}
    return row


CHANGES = {"widens": "above", "narrows": "below"}
"""Relations on the change of a difference, and what is tested of this change."""


def judge(claims: Iterable[Claim], results: pa.Table) -> list[Verdict]:
    """Test each claim on the rows of ``results.table``: once, or in each panel that has its curves.

    If a panel's points have several metrics, only the first is used. Over all claims of the table, each word is wrong
    with a probability of at most LEVEL. Claims that can't be tested yet count as tests, so that more seeds do not
    change the number of tests.

    If seeds were added until claims were decided, the looks share the probability of an error. At each look, the claims
    whose curves have all of its seeds are judged; those decided earlier keep their verdicts.
    """
    verdicts, rows, guessing = _judged(tuple(claims), results), results.to_pylist(), Chance(results)
    return [replace(one, warning=near_chance(one, rows, guessing)) for one in verdicts]


def _judged(claims: Sequence[Claim], results: pa.Table) -> list[Verdict]:
    """Return the verdicts without warnings."""
    rows, looks = results.to_pylist(), looks_of(results)
    metrics: dict[str, str] = {}
    rows = [row for row in rows if metrics.setdefault(row["panel"], row["metric"]) == row["metric"]]
    if not looks:
        return _judged_at_once(claims, rows, LEVEL)
    found: dict[tuple[Claim, str], Verdict] = {}
    for seeds in looks:
        now = _judged_at_once(claims, [row for row in rows if row["seed"] < seeds], LEVEL / len(looks))
        for verdict in now:
            place = verdict.claim, verdict.panel
            if place not in found or found[place].verdict == UNDECIDED:
                found[place] = verdict if verdict.seeds == seeds else replace(verdict, verdict=UNDECIDED)
    return [*found.values()]


def near_chance(verdict: Verdict, rows: Rows, guessing: Chance) -> str:
    """Say that the dense networks behind a verdict are near chance; empty if one is not, or if chance is not known.

    They are those of the claim's curves in its panels, else all of these panels: tickets of any mask are compared with
    the network that is trained on labels. The one with the highest mean over seeds counts.
    """
    named = {curve.panel for curve in verdict.claim.curves if curve.panel is not None} or {verdict.panel} - {""}
    dense: dict[str, list[tuple[float, float | None]]] = {}
    own: set[str] = set()
    for row in rows:
        if row["level"] == 0 and (not named or row["panel"] in named):
            curve = Curve(task=row["task"], init=row["init"], panel=row["panel"])
            name = str(replace(curve, panel=None))
            dense.setdefault(name, []).append((row["value"], guessing.of(row)))
            own |= {name} if any(one.covers(curve) for one in verdict.claim.curves) else set()
    found = [
        (mean(value for value, _ in values), max(chance for _, chance in values if chance is not None), name)
        for name, values in dense.items()
        if name in (own or dense) and all(chance is not None for _, chance in values)
    ]
    if not found or not all(is_near(value, chance) for value, chance, _ in found):
        return ""
    value, chance, name = max(found)
    return f"the dense network ({name}) is near chance: {value:.1f}%, where guessing gives {chance:.1f}%"


def warnings(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the warnings of all verdicts for people: a sentence for each, with the number of verdicts that have it."""
    counts = Counter((verdict.panel, verdict.warning) for verdict in verdicts if verdict.warning)
    return [
        f"{panel}{': ' if panel else ''}{warning}; {count} verdict{'s' * (count > 1)} on what is pruned from it "
        f"mean{'s' * (count == 1)} little"
        for (panel, warning), count in counts.items()
    ]


def _judged_at_once(claims: Sequence[Claim], rows: Rows, level: float) -> list[Verdict]:
    weighed: list[Verdict] = []
    named = {curve.panel for claim in claims for curve in claim.curves if curve.panel is not None}
    several = len({row["panel"] for row in rows} | named) > 1
    for claim in claims:
        if claim.along == "panels":
            seen = labels_seen(claim, rows, _panels_with(claim.curves, rows))
            weighed.append(_weighed(claim, *along_panels(claim, rows), "", seen))
            continue
        own = {curve.panel for curve in claim.curves if curve.panel is not None}
        anywhere = any(curve.panel is None for curve in claim.curves)
        panels = _panels_with(claim.curves, rows) if anywhere else [own.pop() if len(own) == 1 else ""]
        for panel in panels:
            seen = labels_seen(claim, rows, [panel])
            weighed.append(_weighed(claim, *paired(claim, rows, panel), panel if several else "", seen))
        if not panels:
            weighed.append(Verdict(claim=claim))
    return _corrected(weighed, level)


def _weighed(
    claim: Claim, differences: Sequence[Sequence[float]], densities: Sequence[float], panel: str, labels: str
) -> Verdict:
    """Weigh the differences: a row for each density that is tested, with a value for each seed."""
    if not differences:
        return Verdict(claim=claim, panel=panel)
    seeds = len(differences[0])
    found = Verdict(claim=claim, panel=panel, densities=tuple(densities), seeds=seeds, labels=labels)
    if seeds < MIN_SEEDS:
        return replace(found, effect=min(mean(row) for row in differences))
    relation = CHANGES.get(claim.relation, claim.relation)
    evidence = at_each([weigh(row, relation, claim.margin) for row in differences])
    return replace(found, effect=evidence.effect, evidence=evidence)


def _corrected(verdicts: Sequence[Verdict], level: float) -> list[Verdict]:
    """Correct the p-values of relations for their number, and those of their opposites; then give each its word."""
    evidence = [verdict.evidence for verdict in verdicts]
    true = [1.0 if found is None else found.p_true for found in evidence]
    false = [1.0 if found is None else found.p_false for found in evidence]
    corrected = []
    for verdict, *sides in zip(
        verdicts,
        zip(true, holm(true), benjamini_hochberg(true), strict=True),
        zip(false, holm(false), benjamini_hochberg(false), strict=True),
        strict=True,
    ):
        number, (_, by_holm, by_rate) = min(enumerate(sides), key=lambda side: side[1][0])
        word = (HOLDS, CONTRADICTED)[number] if by_holm < level else UNDECIDED
        corrected.append(replace(verdict, verdict=word, holm=by_holm, benjamini_hochberg=by_rate, level=level))
    return corrected


# ------------------------------------------------------------------ differences

Gap = dict[float, float]
"""Density to a value of one seed, or to a difference of two."""


def paired(claim: Claim, rows: Rows, panel: str) -> tuple[list[list[float]], list[float]]:
    """Return higher minus lower, with a value for each seed that has both, and the densities that are compared.

    Values are compared at the same density (to 1%), whatever their levels, and only at densities that every seed has on
    both sides; two curves are not compared at the dense network, where nothing is pruned. The differences have a row:
    their mean over these densities; or a row for each density; or, for ``widens`` and ``narrows``, the sparsest minus
    the densest.
    """
    gaps = _gaps(claim, rows, panel)
    shared = sorted((d for d in gaps[0] if all(_near(d, gap) for gap in gaps)), reverse=True) if gaps else []
    by_density = [[_near(density, gap)[0] for gap in gaps] for density in shared]
    if claim.relation not in CHANGES:
        if claim.at == "each":
            return by_density, shared
        return ([[mean(values) for values in zip(*by_density, strict=True)]] if shared else []), shared
    if len(shared) < 2:
        return [], []
    return [[last - first for first, last in zip(by_density[0], by_density[-1], strict=True)]], [shared[0], shared[-1]]


def along_panels(claim: Claim, rows: Rows) -> tuple[list[list[float]], list[float]]:
    """Return, for each seed, the difference in the last panel with both curves minus that in the first; and densities.

    In each panel the difference is the mean over the levels that both panels and every seed have in range. Levels, not
    densities, are matched: a layer of a hundred weights can't be pruned to the same density as a network.
    """
    panels = _panels_with(claim.curves, rows)
    if len(panels) < 2:
        return [], []
    first, last = (_gaps_by_level(claim, rows, panel) for panel in (panels[0], panels[-1]))
    seeds = sorted(first.keys() & last.keys())
    gaps = [side[seed] for side in (first, last) for seed in seeds]
    shared = sorted(set.intersection(*(set(gap) for gap in gaps))) if gaps else []
    if not shared:
        return [], []
    differences = [mean(last[seed][n][1] - first[seed][n][1] for n in shared) for seed in seeds]
    return [differences], [last[seeds[0]][n][0] for n in shared]


def labels_seen(claim: Claim, rows: Rows, panels: Iterable[str]) -> str:
    """Say how many samples with labels each side has seen, the higher first; empty if they are as many or not known."""
    known = [row | {"value": row["label_samples"]} for row in rows if row["label_samples"] is not None]
    pairs = {pair for panel in panels for sides in _sides(claim, known, panel) for pair in sides.values()}
    if not isinstance(claim.lower, Curve | Dense) or all(higher == lower for higher, lower in pairs):
        return ""
    ends = [(min(seen), max(seen)) for seen in zip(*pairs, strict=True)]
    higher, lower = (f"{least:,}" + f" to {most:,}" * (least < most) for least, most in ends)
    return f"the sides saw {higher} and {lower} samples with labels"


def _gaps_by_level(claim: Claim, rows: Rows, panel: str) -> dict[int, dict[int, tuple[float, float]]]:
    """Map seed to level to (density, higher minus lower), in range."""
    higher, lower = (
        {(r["seed"], r["level"]): r for r in rows if r["panel"] == panel and (r["task"], r["init"]) == (c.task, c.init)}
        for c in claim.curves
    )
    gaps: dict[int, dict[int, tuple[float, float]]] = {}
    for (seed, level), row in higher.items():
        at = gaps.setdefault(seed, {})
        if level and (seed, level) in lower and claim.within[0] <= row["density"] <= claim.within[1]:
            at[level] = (row["density"], row["value"] - lower[seed, level]["value"])
    return gaps


def _panels_with(curves: Iterable[Curve], rows: Rows) -> list[str]:
    """Return the panels that have all of the curves, in the order of the rows."""
    panels = dict.fromkeys(row["panel"] for row in rows)
    return [panel for panel in panels if all(_values(curve, rows, panel) for curve in curves)]


def _gaps(claim: Claim, rows: Rows, panel: str) -> list[Gap]:
    """Return higher minus lower in range, for each seed that both sides have."""
    return [{d: above - below for d, (above, below) in sides.items()} for sides in _sides(claim, rows, panel)]


def _sides(claim: Claim, rows: Rows, panel: str) -> list[dict[float, tuple[float, float]]]:
    """Return the values of both sides in range, by density, for each seed that both sides have."""
    low, high = claim.within
    curves = {curve: _values(curve, rows, panel) for curve in claim.curves}
    dense_too = not isinstance(claim.lower, Curve | Dense)
    found: list[dict[float, tuple[float, float]]] = []
    for seed in sorted(set.intersection(*(set(values) for values in curves.values()))):
        seen = {curve: values[seed] for curve, values in curves.items()}
        densities = next((seen[side] for side in (claim.higher, claim.lower) if isinstance(side, Curve)), (1.0,))
        sides = {d: (_value(claim.higher, seen, d), _value(claim.lower, seen, d)) for d in densities}
        inside = ((d, *both) for d, both in sides.items() if low <= d <= high and (d < 1 or dense_too))
        found.append({d: (above, below) for d, above, below in inside if above is not None and below is not None})
    return found


def _value(side: Curve | Dense | float, seen: Mapping[Curve, Gap], density: float) -> float | None:
    """Return the value of a side of a claim at a density, if ``seen``, the curves of one seed, have it."""
    if isinstance(side, Curve):
        return next(iter(_near(density, seen[side])), None)
    return seen[side.curve].get(1.0) if isinstance(side, Dense) else float(side)


def _values(curve: Curve, rows: Rows, panel: str) -> dict[int, Gap]:
    """Map seed to density to value, in the curve's own panel or else in this one."""
    values: dict[int, Gap] = {}
    for row in rows:
        at = Curve(task=row["task"], init=row["init"], panel=row["panel"])
        if curve.covers(at) and (curve.panel is not None or row["panel"] == panel):
            values.setdefault(row["seed"], {})[row["density"]] = row["value"]
    return values


def _near(density: float, values: Gap) -> list[float]:
    """Return the value at this density, up to the rounding to whole weights, in a list of one; or an empty list."""
    near = sorted((d for d in values if abs(d - density) <= 0.01 * density), key=lambda d: abs(d - density))
    return [values[d] for d in near[:1]]
