"""docs/results.md, its pictures and docs/science.md, made from the tables in docs/data and a template for each page.

Each section of the results shows a figure at every scale that has a table of it; all figures must have one at the scale
laptop. All results on the pages come from the tables, the verdicts from :mod:`raysslprune.results.claims`, and the
pictures from :mod:`raysslprune.figures`. Nothing depends on the time or on what is installed.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa

from raysslprune import results
from raysslprune.catalogue import label_samples
from raysslprune.kinds import kind_of
from raysslprune.messages import SCALE, UserError, sweep_command
from raysslprune.paper import scalefile
from raysslprune.paper.experiments import PROPER_NAMES, rewinds_with_few_labels
from raysslprune.paper.scales import FEW, SETTINGS, SIAMESE, Scale, given, images_of
from raysslprune.results import claims
from raysslprune.spec import Train, closure, read_by
from raysslprune.sweep_loader import Sweep, known, load
from raysslprune.sweepfile import Magnitudes
from raysslprune.table import Table, markdown
from raysslprune.terminal import tables

VERSIONS = ("raysslprune", "torch", "numpy", "python")

COLUMNS = pa.schema(
    [
        *results.SCHEMA,
        pa.field("date", pa.date32(), False, {"about": "day on which its training ran"}),
        *(pa.field(name, pa.string(), False, {"about": "version"}) for name in VERSIONS),
        pa.field("device", pa.string(), False, {"about": "the kind of processor or GPU"}),
        pa.field("tried", pa.bool_(), True, {"about": "whether this rewind is a finalist; null: no search"}),
    ]
)
"""Columns of a table in docs/data: those of a sweep's results, and when and with what each row's training ran."""

DPI = 200
"""Dots per inch of the pictures, which are then 1,380 pixels wide."""

PAGES = ("results.md", "science.md")
"""Pages whose templates, in the same folder, have a name that ends in ``.jinja``."""

_JPEG = "benchmarks/cifar10-jpeg.toml"

CIFAR10 = Scale("cifar10-jpeg", SETTINGS[scalefile.scale(Path(__file__).parent.parent / _JPEG)], (_JPEG,))
"""The scale of natural images on the page."""

SCALES = {SCALE: "digits", CIFAR10: "CIFAR-10"}
"""Scales on the page, and what their columns are called. The first has all figures."""

NOT_TESTED = "not tested"
"""What stands for a verdict where there is nothing to test: too few seeds, or no density in common."""

WORDS = (*claims.VERDICTS, NOT_TESTED)
"""What a claim can have on the page in the place of a verdict, in the order of counts."""


def write(docs: Path) -> dict[str, str]:
    """Write the pages and the pictures under ``docs``, from ``docs/data``. Returns what happened to each file."""
    scales = every(docs / "data")
    made = {page: text(scales, (docs / f"{page}.jinja").read_text()).encode() for page in PAGES}
    made |= {f"images/{figure.file}": picture(figure) for figures in scales.values() for figure in figures.values()}
    done: dict[str, str] = {}
    for name, content in made.items():
        path = docs / name
        same = path.exists() and path.read_bytes() == content
        done[name] = "unchanged" if same else "written"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return done


def every(data: Path) -> dict[str, dict[str, Figure]]:
    """Return the sweeps on the page by name, by scale. The errors are those of :func:`shown`.

    At other scales than that which has all figures, a single seed is not shown: it decides nothing, and has no spread.
    """
    found = {
        scale: {name: figure for name, figure in shown(data, scale).items() if scale == SCALE or figure.seeds > 1}
        for scale in SCALES
    }
    return {scale: figures for scale, figures in found.items() if figures}


def read(path: Path) -> pa.Table | None:
    """Read a table of docs/data; None if it does not exist. Raises UserError if it is damaged."""
    try:
        return results.from_parquet(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"can't read {path}: {error}; restore it with git checkout") from None


def shown(data: Path, scale: str = SCALE) -> dict[str, Figure]:
    """Return the sweeps of a scale on the page by name, each with its table.

    Raises UserError if a table does not fit its sweep, or if one is missing at the scale that has all figures.
    """
    found: dict[str, Figure] = {}
    for name in known():
        table, lines = (read(data / scale / f"{name}{end}.parquet") for end in ("", "-magnitudes"))
        sweep = load(name, scale, 1 + max(table["seed"].to_pylist()) if table else 1)
        if not kind_of(sweep).trains:
            continue
        if table is None and scale != SCALE:
            continue
        if table is None or (lines is None and isinstance(sweep.drawing, Magnitudes)):
            command = "python -m benchmarks results --add ROOT"
            raise UserError(f"{data / scale} has no table of {name}; to add it from a root, run: {command}")
        if not set(table["step"].to_pylist()) <= {point.step.id for point in sweep.points}:
            raise UserError(f"{data / scale} has other steps of {name} than sweeps/; delete its table and add it again")
        found[name] = Figure(sweep, scale, _of_this_design(sweep, table), lines)
    return found


def _of_this_design(sweep: Sweep, table: pa.Table) -> pa.Table:
    """Fill in the columns that tables of an earlier design lack: their steps are those of the sweep, so of this one."""
    steps = {point.step.id: point.step for point in sweep.points}
    rows = [row | of_this_design(steps[row["step"]]) for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def of_this_design(step: Train) -> dict[str, int | None]:
    """Return the columns of a result that tables of an earlier design lack, from its step."""
    return {"label_samples": label_samples(step), "design": results.DESIGN}


@dataclass(frozen=True)
class Figure:
    """A sweep on the page, as the template shows it. magnitudes: table to draw instead of ``table``."""

    sweep: Sweep
    scale: str
    table: pa.Table
    magnitudes: pa.Table | None

    @property
    def file(self) -> str:
        return f"{self.sweep.name}-{self.scale}.png"

    @property
    def image(self) -> str:
        """The picture in Markdown."""
        return f"![{self.sweep.drawing.title}](images/{self.file})"

    @property
    def tables(self) -> str:
        """The means over seeds in Markdown, a table for each panel, and the curves with empty layers."""
        kind, named = kind_of(self.sweep), _with_proper_names(self.table)
        parts = []
        for caption, n, grid in tables.mean_tables(kind.shown(named), kind.layout, kind.inits):
            parts.append(f"{caption}{', ' if caption else ''}{n}:\n\n{markdown(grid)}")
        if empty := tables.empty_layers(named):
            parts.append(f"Layers with no weight left in at least one seed: {empty}.")
        return "\n\n".join(parts)

    @cached_property
    def verdicts(self) -> list[claims.Verdict]:
        return claims.judge(self.sweep.claims, self.table)

    @property
    def seeds(self) -> int:
        return len(set(self.table["seed"].to_pylist()))

    @property
    def command(self) -> str:
        """What makes the figure with these seeds."""
        return sweep_command(self.sweep.name, given(self.scale), seeds=self.table["seed"].to_pylist())

    def words(self, says: str) -> str:
        """Return the verdict of a claim; of a claim in several panels, how many have which."""
        found = [_word(verdict) for verdict in self.verdicts if verdict.claim.says == says]
        if len(set(found)) < 2:
            return found[0] if found else ""
        return ", ".join(f"{word} in {found.count(word)} of {len(found)}" for word in WORDS if word in found)

    def effect(self, says: str) -> str:
        """Return the measured difference of a claim that is made once, with its interval, as text."""
        (verdict,) = (verdict for verdict in self.verdicts if verdict.claim.says == says)
        return verdict.parts[0].partition(" at ")[0].partition(" difference ")[2]

    def changed_by(self, margin: float) -> list[str]:
        """List the claims that another margin would give another verdict, with both verdicts."""
        other = claims.judge(
            [replace(one, margin=margin) if one.margin else one for one in self.sweep.claims], self.table
        )
        return [
            f"{was.claim.says} ({was.verdict}; then {now.verdict})"
            for was, now in zip(self.verdicts, other, strict=True)
            if was.verdict != now.verdict
        ]

    @property
    def undecided(self) -> str:
        """How many verdicts are undecided, the number of seeds, and the effects that the tests would find."""
        words = [_word(verdict) for verdict in self.verdicts]
        if set(words) == {NOT_TESTED}:
            return f"{NOT_TESTED}: {self.seeds} seeds"
        found = [verdict for verdict, word in zip(self.verdicts, words, strict=True) if word == claims.UNDECIDED]
        effects = sorted({f"{one.evidence.detectable:.1f}" for one in found if one.evidence}, key=float)
        would = f": {' to '.join(dict.fromkeys((effects[0], effects[-1])))}" if effects else ""
        return f"{len(found)} of {len(self.verdicts)} with {self.seeds} seeds{would}"

    @property
    def found(self) -> str:
        """What is decided, in a sentence."""
        decided = dict.fromkeys(
            f"“{verdict.claim.says}”{f' ({verdict.panel})' if verdict.panel else ''} {verb}"
            for word, verb in ((claims.HOLDS, "holds"), (claims.CONTRADICTED, "is contradicted"))
            for verdict in self.verdicts
            if verdict.verdict == word
        )
        if not decided:
            return "no verdict is decided."
        undecided = [verdict.verdict for verdict in self.verdicts].count(claims.UNDECIDED)
        rest = [f"{undecided} of {len(self.verdicts)} verdicts are undecided"] if undecided else []
        return f"{'; '.join([*decided, *rest])}."

    @property
    def claims(self) -> str:
        """The claims with their verdicts, in Markdown."""
        rows = []
        for verdict in self.verdicts:
            where = f"{verdict.panel}: " if verdict.panel else ""
            rows.append((f"{where}{verdict.claim.says}", verdict.claim.source, _word(verdict), verdict.numbers))
        return markdown(Table.of(("claim", "in the paper", "verdict", "numbers"), rows))

    def at(self, task: str, init: str, pruned: str = "dense", panel: str | None = None) -> str:
        """Return mean ± standard error of a point, as text. Raises KeyError unless exactly one point matches."""
        found = [
            row
            for row in results.summary(self.table).to_pylist()
            if (row["task"], row["init"], tables.pruned(row)) == (task, init, pruned) and panel in (None, row["panel"])
        ]
        if len(found) != 1:
            raise KeyError(f"{self.sweep.name} has {len(found)} points {task}, {init}, {pruned}, {panel}")
        return tables.mean(found[0])

    def most(self, metric: str) -> str:
        """Return the largest value of a metric over all seeds, as text."""
        return f"{max(row['value'] for row in self.table.to_pylist() if row['metric'] == metric):.2g}"

    @cached_property
    def tried(self) -> dict[tuple[str, int, int], float]:
        """Means over seeds by which the finalists of a search are compared, by (task, level, rewind)."""
        rows = results.summary(self.table.filter(self.table["tried"])).to_pylist()
        by = getattr(self.sweep.drawing, "objective", None)
        return {(row["task"], row["level"], row["rewind"]): row["mean"] for row in rows if row["metric"] == by}

    @property
    def candidates(self) -> int:
        """Number of rewinds to choose from."""
        return len({point.step.rewind for point in self.sweep.points} - {None})

    @property
    def search(self) -> str:
        """What each study chose, in Markdown."""
        tried = {(_proper(task), n, rewind): value for (task, n, rewind), value in self.tried.items()}
        shown = kind_of(self.sweep).shown(_with_proper_names(self.table))
        return markdown(tables.search_table(shown, tried))


def _word(verdict: claims.Verdict) -> str:
    return NOT_TESTED if verdict.untold else verdict.verdict


def _with_proper_names(table: pa.Table) -> pa.Table:
    names = [_proper(task) for task in table["task"].to_pylist()]
    return table.set_column(table.schema.get_field_index("task"), table.schema.field("task"), pa.array(names))


def _proper(task: str) -> str:
    """Return the name of a task or a control as on the page: ``shuffled RotNet``, ``random ERK``."""
    return " ".join((PROPER_NAMES | {"erk": "ERK"}).get(word, word) for word in task.split())


def picture(figure: Figure) -> bytes:
    """Draw the figure as PNG, from the same rows as its tables."""
    from PIL import Image

    from raysslprune.figures.ink import save

    kind = kind_of(figure.sweep)
    table = figure.magnitudes or kind.shown(figure.table.select(results.SCHEMA.names))
    canvas = kind.canvas(table, figure.tried)
    drawn = Image.open(io.BytesIO(save(canvas, "png", dpi=DPI))).convert("RGB")
    buffer = io.BytesIO()
    drawn.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def text(scales: Mapping[str, Mapping[str, Figure]], template: str) -> str:
    """Render a page. scales: figures by name, by scale."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    figures, setting = scales[SCALE], SETTINGS[SCALE]
    on_page = [figure for found in scales.values() for figure in found.values()]
    page = environment.from_string(template).render(
        figures=figures,
        natural=scales.get(CIFAR10, {}),
        natural_setting=CIFAR10.setting,
        setting=setting,
        images=images_of(setting.data),
        few=images_of(f"{setting.data}:{FEW}"),
        finetuned=images_of(CIFAR10.setting.finetune.data, CIFAR10.setting.net.images),
        rewinds=rewinds_with_few_labels(setting.net),
        newer=[(PROPER_NAMES[task], task) for task in SIAMESE],
        margins=" and ".join(f"{SETTINGS[scale].margin:g} points on {SCALES[scale]}" for scale in scales),
        trainings=_trainings(on_page),
        origins="\n\n".join(_origins(scale, found.values()) for scale, found in scales.items()),
        overview=partial(_overview, scales),
        evidence=partial(_evidence, scales),
        agreement=agreement(scales),
    )
    return "\n\n".join(map(_filled, re.sub(r"(?<=\d) %", "%", page).strip().split("\n\n"))) + "\n"


def _evidence(scales: Mapping[str, Mapping[str, Figure]], name: str) -> str:
    """Show a figure at each scale that has it: what makes it, its picture, means, claims, and what was found."""
    parts = []
    for scale, figure in ((scale, found[name]) for scale, found in scales.items() if name in found):
        heading = [f"### {SETTINGS[scale].title}"] if len(scales) > 1 else []
        judged = [figure.claims, f"Found: {figure.found}"] if figure.verdicts else []
        parts += [*heading, f"    {figure.command}", figure.image, figure.tables, *judged]
    return "\n\n".join(parts)


def _filled(block: str) -> str:
    """Wrap a block of Markdown: paragraphs and lists to 120 columns; all else stays as it is."""
    if re.match(r"[|#!<]|    ", block):
        return block
    lines = []
    for item in re.split(r"\n(?=- )", block):
        words = " ".join(item.split()).replace(" ± ", "\0±\0")  # a mean and its error stay on one line
        indent = "  " if item.startswith("- ") else ""
        lines += textwrap.wrap(words, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _overview(scales: Mapping[str, Mapping[str, Figure]], sections: Mapping[str, str]) -> str:
    """List the claims and their verdicts at each scale, in Markdown. sections: headings by figure."""
    rows = []
    for name, heading in sections.items():
        at = {scale: found[name] for scale, found in scales.items() if name in found}
        link = f"[{heading.partition(':')[0]}](#{_anchor(heading)})"
        said = dict.fromkeys((claim.says, claim.source) for figure in at.values() for claim in figure.sweep.claims)
        for says, source in said:
            words = (at[scale].words(says) if scale in at else "" for scale in scales)
            rows.append((link, says, source, *words))
            link = ""
    return markdown(Table.of(("figure", "claim", "source", *(SCALES[scale] for scale in scales)), rows))


def agreement(scales: Mapping[str, Mapping[str, Figure]]) -> dict[tuple[str, ...], list[str]]:
    """List the claims of the figures that all scales have by their verdicts, one for each scale: decided ones first."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name in known():
        if all(name in figures for figures in scales.values()):
            at = [figures[name] for figures in scales.values()]
            for says in dict.fromkeys(claim.says for figure in at for claim in figure.sweep.claims):
                words = tuple(figure.words(says) for figure in at)
                if all(words) and NOT_TESTED not in words:
                    found.setdefault(words, []).append(f"{says} ({name})")
    return dict(sorted(found.items(), key=lambda item: (item[0].count(claims.UNDECIDED), len(set(item[0])))))


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub makes for a heading."""
    return re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")


def _trainings(figures: Iterable[Figure]) -> int:
    """Count the trainings behind all rows: each once, however many figures share it."""
    steps = {step for figure in figures for step in figure.table["step"].to_pylist()}
    points = (point for figure in figures for point in figure.sweep.points if point.step.id in steps)
    return sum(isinstance(step, Train) for step in closure((point.step for point in points), read_by))


def _origins(scale: str, figures: Iterable[Figure]) -> str:
    """List when, and with which device and versions, each seed of a scale was trained, in Markdown."""
    found: dict[tuple[str, ...], set[date]] = {}
    for row in (row for figure in figures for row in figure.table.to_pylist()):
        key = (str(row["seed"]), row["device"], *(row[name] for name in VERSIONS))
        found.setdefault(key, set()).add(row["date"])
    rows = []
    for (seed, *made), days in sorted(found.items()):
        last = f" to {max(days)}" if len(days) > 1 else ""
        rows.append((seed, f"{min(days)}{last}", *made))
    return f"On {SCALES[scale]}:\n\n" + markdown(Table.of(("seed", "trained", "on", *VERSIONS), rows))
