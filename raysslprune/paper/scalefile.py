"""Scales as TOML files: read one on top of a scale of the package, and replace single values of a scale.

A scale is built from *layers*, each a table of plain values: the base, the file, and values of a command line. A later
layer replaces what an earlier one has. A scale of the package becomes a layer by ``scaletext.plain``, which writes
lengths in epochs and data sets relative to the scale's own. So what a file inherits adapts itself to its data set.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from raysslprune import catalogue
from raysslprune.catalogue import data_parts
from raysslprune.messages import MAX_SEEDS, USAGE, UserError
from raysslprune.paper.experiments import arch_title
from raysslprune.paper.scales import (
    SETTINGS,
    Net,
    Probe,
    Scale,
    Setting,
    Target,
    counted,
    given,
    images_of,
    whole,
)
from raysslprune.paper.scaletext import BEGIN, FIELDS, LENGTHS, Table, absolute, plain, toml
from raysslprune.spec import SVM, Recipe, is_number, is_text, is_whole
from raysslprune.sweepfile import MAX_LABEL, Unfit


class ScaleError(UserError):
    """A scale can't be used."""

    code = USAGE


Keys = tuple[str, ...]

SET = "--set"

LENGTH = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+|/[1-9][0-9]*)?) ?(epoch|sample|update)s?")

SOURCES = {"digits": "digits", "cifar10": "CIFAR-10", "imagenet": "ImageNet"}
"""Names of data sets in the titles of the package's scales."""


def scale(name: str | os.PathLike[str], changes: Mapping[str, Any] | Iterable[str] = ()) -> str:
    """The scale of that name, or of a TOML file; SETTINGS takes what is returned.

    changes: values to replace, by their keys in a file, as ``{"labels.lr": 0.1}``; or as text, ``labels.lr=0.1``.
    Raises ScaleError, in one sentence with the file's line.
    """
    name = os.fspath(name)
    parsed = [_change(*pair) for pair in changes.items()] if isinstance(changes, Mapping) else map(_parsed, changes)
    above = sorted({layer.keys: layer for layer in parsed}.values(), key=lambda layer: layer.keys)
    known = isinstance(name, Scale) or name in SETTINGS
    if known and not above:
        return name
    stem, layers = (str(name), [_Layer(plain(SETTINGS[name]), f"scale {name}")]) if known else _file(name)
    setting = _Reader([*layers, *above]).setting()
    words = [layer.name.removeprefix(f"{SET} ") for layer in above]
    if words:
        stem = f"{stem}-set-{_slug(','.join(words))}"
    return Scale(stem, setting, (*given(name), *(word for value in words for word in (SET, value))))


def no_scale(name: str) -> str:
    """Say that there is no such scale, and which there are."""
    return f"there is no scale {name!r}, only {', '.join(SETTINGS)}, and files whose names end in .toml{_near(name)}"


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, SETTINGS, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _file(name: str) -> tuple[str, list[_Layer]]:
    """The name of a scale file's results, and its layers: its base, if it has one, and itself. Raises ScaleError."""
    path = Path(os.path.expanduser(name))
    if path.suffix != ".toml":
        raise ScaleError(no_scale(name))
    if path.stem in SETTINGS:
        raise ScaleError(f"{name} would replace the results of the package's scale {path.stem}; rename the file")
    if not re.fullmatch(r"\w[\w.+=-]*", path.stem):
        raise ScaleError(
            f"{name} must have a name of letters, digits and _ . + = -, as the folder of its results has the same name"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScaleError(f"there is no scale file {name}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScaleError(
            f"scale file {name} can't be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from error
    try:
        layer = _Layer(tomllib.loads(text), name, text)
    except tomllib.TOMLDecodeError as error:
        why, _, at = str(error).partition(" (at line ")
        line = at.partition(",")[0] or str(text.count("\n") + 1)
        raise ScaleError(f"{name}, line {line}: {why}") from error
    base = layer.tables.get("base")
    if base is None:
        return path.stem, [layer]
    if not isinstance(base, str) or base not in SETTINGS:
        layer.fail(("base",), f"base must be one of {', '.join(SETTINGS)}, not {base!r:.80}{_near(str(base))}")
    return path.stem, [_Layer(plain(SETTINGS[base]), f"scale {base}"), layer]


# ------------------------------------------------------------------------------------- layers


@dataclass(frozen=True)
class _Layer:
    """Plain values. name: where they come from, for people. text: of a file; None if it is none. keys: of a change."""

    tables: Table
    name: str
    text: str | None = None
    keys: Keys = ()

    def fail(self, keys: Keys, sentence: str) -> NoReturn:
        line = "" if self.text is None else _line(self.text, keys)
        raise ScaleError(f"{self.name}{line and f', line {line}'}: {sentence}")

    def table(self, *keys: str) -> Table:
        """The table below some keys; empty if there is none, or if the value there is not a table."""
        found: Any = self.tables
        for key in keys:
            found = found.get(key, {}) if isinstance(found, Mapping) else {}
        return found if isinstance(found, Mapping) else {}


_BARE = r"[\w*%-]+"
_KEY = rf"""(?:"[^"]*"|'[^']*'|{_BARE})"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _split(dotted: str) -> Keys:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, dotted))


def _line(text: str, keys: Keys) -> str:
    """Number of the line of a TOML text that has the value at ``keys``, else of the table around it; '' for none.

    tomllib gives no lines of values.
    """
    table: Keys = ()
    around, inside = (0, ""), ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(rf"\s*\[\[?\s*({_DOTTED})\s*\]", line):
            here = table = _split(header[1])
        elif value := re.match(rf"\s*({_DOTTED})\s*=", line):
            here = (*table, *_split(value[1]))
        else:
            continue
        if here == keys:
            return str(number)
        if keys[: len(here)] == here and len(here) > around[0]:
            around = len(here), str(number)
        if here[: len(keys)] == keys:
            inside = inside or str(number)
    return inside or around[1]


def _parsed(text: str) -> _Layer:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ScaleError(f"--set {text}: write KEY=VALUE with a key of a scale file, such as labels.lr=0.1")
    try:
        return _change(key, tomllib.loads(f"value = {value}")["value"])
    except tomllib.TOMLDecodeError:
        return _change(key, value.strip())


def _change(key: str, value: Any) -> _Layer:
    """The layer with a single value. A key that begins with a task is one of a recipe: ``labels.lr``.

    Tasks such as ``labels:10%-of-images`` need no quotes here.
    """
    keys = tuple(part.strip("\"'") for part in re.findall(r""""[^"]*"|'[^']*'|[^.]+""", key.strip()))
    if not keys or keys[0] == "base":
        raise ScaleError(f"--set {key}={value}: a key is one of a scale file other than base, such as labels.lr")
    keys = keys if keys[0] in TOP else ("recipes", *keys)
    tables: Any = value
    for one in reversed(keys):
        tables = {one: tables}
    name = ".".join(keys[1:] if keys[0] == "recipes" else keys)
    return _Layer(tables, f"{SET} {name}={value if isinstance(value, str) else toml(value)}", keys=keys)


def _slug(text: str) -> str:
    """Text that can be a part of a folder's name, with a hash if it does not have all of the text."""
    short = re.sub(r"[^\w.,=+-]+", "-", text.replace("*", "all"))[:60]
    return short if short == text else f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# ------------------------------------------------------------------------------------- what a file may have


def _whole(low: int, high: int = 2**31) -> Callable[[object], bool]:
    return lambda item: is_whole(item) and low <= item <= high  # pyright: ignore[reportOperatorIssue]


def _number(low: float, high: float) -> Callable[[object], bool]:
    return lambda item: is_number(item) and low <= item <= high  # pyright: ignore[reportOperatorIssue]


def _is_label(item: object) -> bool:
    return is_text(item) and 0 < len(str(item)) <= MAX_LABEL and str(item).isprintable()


def _are_levels(item: object) -> bool:
    numbers = isinstance(item, list) and bool(item) and all(map(_whole(1), item))
    return numbers and item == sorted(set(item))  # pyright: ignore[reportArgumentType]


def _are_names(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(map(_is_label, item)) and len(set(item)) == len(item)


def _is_length(item: object) -> bool:
    return _whole(0)(item) or (isinstance(item, str) and LENGTH.fullmatch(item) is not None)


def _is_table(item: object) -> bool:
    return isinstance(item, Mapping)


Check = tuple[Callable[[object], bool], str]

_NAME: Check = (_is_label, f"printable text of at most {MAX_LABEL} characters")
_LENGTH: Check = (_is_length, "a number of samples, or text such as '24 epochs', '500 updates' or '30000 samples'")
_COUNT: Check = (_whole(1), "a whole number of at least 1")
_SIZE: Check = (_whole(*catalogue.SIZES), "a whole number of pixels from {} to {}".format(*catalogue.SIZES))
_TABLE: Check = (_is_table, "a table")
_BOOL: Check = (lambda item: isinstance(item, bool), "true or false")

NET: Mapping[str, Check] = {
    "title": _NAME,
    "data": _NAME,
    "images": _COUNT,
    "size": _SIZE,
    "arch": _NAME,
    "rewind": _LENGTH,
    "natural_zeros": _BOOL,
    "recipes": _TABLE,
}
"""Keys of a network, and what their values must be."""

TOP: Mapping[str, Check] = {
    "base": _NAME,
    **NET,
    "levels": (_are_levels, "a list of whole numbers from 1, in ascending order"),
    "keep": (lambda item: is_number(item) and 0 < item < 1, "a fraction between 0 and 1"),  # pyright: ignore[reportOperatorIssue]
    "seeds": (_whole(1, MAX_SEEDS), f"a whole number from 1 to {MAX_SEEDS}"),
    "margin": (lambda item: is_number(item) and 0 < item <= 100, "a number of points above 0"),  # pyright: ignore[reportOperatorIssue]
    "gpus": (_number(0, 1), "a number from 0 to 1"),
    "nets": _TABLE,
    "linear": _TABLE,
    "finetune": _TABLE,
    "unpruned": _TABLE,
}
"""Keys of a scale file, and what their values must be."""

NEEDED = ("data", "arch", "levels", "keep", "rewind", "recipes", "linear", "finetune", "unpruned")
"""Keys without which a file needs a base."""

RECIPE, SVMS = ([field.name for field in fields(kind)] for kind in (Recipe, SVM))
PROBE: Mapping[str, Check] = {"title": _NAME, "data": _NAME, "images": _COUNT, "metric": _NAME}
"""Keys of a test of features, beside those of its recipe."""

FIGURES = ("fig6", "fig10")
"""Keys of [unpruned] that are lists of networks; its tables are trainings."""


@dataclass
class _Field:
    """A value of a recipe, and where it comes from."""

    value: Any
    layer: _Layer
    keys: Keys


Raw = dict[str, _Field]
"""Fields of a recipe as they are written."""


class _Reader:
    """Build a setting from layers."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self.layers = layers
        self.base = layers[0] if layers[0].text is None else None
        for layer in layers:
            self._check(layer, (), TOP)
        lacking = [key for key in NEEDED if all(key not in layer.tables for layer in layers)]
        if lacking:
            layers[0].fail((), f'without base = "laptop" or another scale, a file needs {", ".join(lacking)} too')
        self.data = self._data(())[0]
        self.replaced = self.base is not None and self.data != self.base.tables["data"]
        self.counts = {name: count for name, count in self._counts().items() if not _is_known(name, count)}
        self.known = counted(self.counts)

    def setting(self) -> Setting:
        """The setting. Raises ScaleError for what is wrong in the layers."""
        raw = self._tasks(("recipes",), {})
        main = self._net((), raw)
        others = {name: self._net(("nets", name), raw) for name in self._named("nets")}
        titles: dict[str, str] = {main.title: "the main network"}
        for name, net in others.items():
            if net.title in titles:
                self._fail(("nets", name), f"network {name} has the title of {titles[net.title]}, {net.title!r}")
            titles[net.title] = name
        return Setting(
            net=main,
            others=others,
            linear=tuple(self._probe(("linear", name)) for name in self._named("linear", (*RECIPE, *SVMS))),
            finetune=self._probe(("finetune",), Target),
            keep=self._value("keep")[0],
            levels=tuple(self._value("levels")[0]),
            seeds=self._value("seeds", 1)[0],
            margin=self._value("margin", 2.0)[0],
            gpus=self._value("gpus", 0.0)[0],
            unpruned=dict(self._run(name, raw["labels"]) for name in self._named("unpruned", FIGURES)),
            unpruned_archs={figure: self._archs(figure, main, others) for figure in FIGURES},
            counts=self.counts,
        )

    # ------------------------------------------------------------------ values

    def _fail(self, keys: Keys, sentence: str) -> NoReturn:
        """Raise a ScaleError at the last layer that has a value at ``keys``."""
        having = [layer for layer in self.layers if keys[-1] in layer.table(*keys[:-1])]
        (having or self.layers)[-1].fail(keys, sentence)

    def _find(self, keys: Keys) -> tuple[Any, _Layer] | None:
        """The value of the last layer that has one."""
        for layer in reversed(self.layers):
            if keys[-1] in (table := layer.table(*keys[:-1])):
                return table[keys[-1]], layer
        return None

    def _value(self, key: str, default: Any = None) -> tuple[Any, _Layer]:
        return self._find((key,)) or (default, self.layers[-1])

    def _named(self, section: str, values: Sequence[str] = ()) -> list[str]:
        """Names of the tables of a section, in order, without those that a later layer sets to false.

        values: keys of the section itself, which are no names.
        """
        names: dict[str, None] = {}
        for layer in self.layers:
            for name, value in layer.table(section).items():
                if name in values:
                    continue
                if value is False:
                    names.pop(name, None)
                elif isinstance(value, Mapping):
                    names[name] = None
                elif values:
                    layer.fail((section, name), _unknown(name, values))
                else:
                    layer.fail((section, name), f"{name} must be a table, or false to leave it out, not {value!r:.80}")
        return list(names)

    def _check(self, layer: _Layer, keys: Keys, known: Mapping[str, Check], but: Sequence[str] = ()) -> None:
        """Raise ScaleError for an unknown key of a table, or a value of the wrong type. but: keys checked elsewhere."""
        for key, value in layer.table(*keys).items():
            if key in but:
                continue
            if key not in known:
                layer.fail((*keys, key), _unknown(key, (*known, *but)))
            fits, wanted = known[key]
            if not fits(value):
                layer.fail((*keys, key), f"{key} must be {wanted}, not {value!r:.80}")

    def _counts(self) -> dict[str, int]:
        """The training images of data sets as the layers give them, by name, the scale's own among them."""
        found: dict[str, int] = {}
        sections = ("nets", "linear", "unpruned")
        tables = [(name, key) for layer in self.layers for name in sections for key in layer.table(name)]
        for keys in dict.fromkeys([*tables, ("finetune",)]):
            if images := self._find((*keys, "images")):
                found[self._data(keys)[0]] = images[0]
        given = self._find(("images",))
        if given and self.layers.index(given[1]) >= self.layers.index(self._value("data")[1]):
            found[self.data] = given[0]
        else:
            try:
                found[self.data] = images_of(self.data)
            except Unfit:
                self._fail(
                    ("data",),
                    f"data {self.data} needs images, the number of its training images; raysslprune check "
                    f"{self.data} prints it",
                )
        return found

    def _data(self, keys: Keys) -> tuple[str, bool]:
        """The data set of a table, and True if it is the scale's or a part of it."""
        text, layer = self._find((*keys, "data")) or ("", self.layers[-1])
        if not isinstance(text, str):
            layer.fail((*keys, "data"), f"data must be text, not {text!r:.80}")
        data = absolute(text, self.data) if keys else text
        with _located(layer, (*keys, "data")):
            source, argument, _ = data_parts(data)
            catalogue.check("data set", catalogue.DATASETS, source)
            if source == "folder":
                catalogue.sized(argument)
        if found := self._find((*keys, "size")):
            data = _sized(data, *found, (*keys, "size"))
        return data, text == "" or text[0] in ":*"

    def _title(self, keys: Keys, name: str, of_scale: bool) -> str:
        """The title of a test. One of the base has the name of the new data set in the place of the base's."""
        title, layer = self._find((*keys, "title")) or (name, self.base)
        if self.base is None or layer is not self.base or keys[-1] not in self.base.table(*keys[:-1]):
            return title
        if not self.replaced or not of_scale:
            return title
        source = data_parts(self.base.tables["data"])[0]
        return title.replace(SOURCES.get(source, source), whole(self.data))

    # ------------------------------------------------------------------ networks

    def _net(self, keys: Keys, raw: Mapping[str, Raw]) -> Net:
        """The main network, without keys, or a further one. raw: the recipes of the main network."""
        for layer in self.layers if keys else ():
            self._check(layer, keys, NET)
        arch, where = self._find((*keys, "arch")) or self._value("arch")
        with _located(where, (*keys, "arch")):
            catalogue.check("architecture", catalogue.ARCHITECTURES, arch)
        data, _ = self._data(keys) if keys else (self.data, True)
        own = self._tasks((*keys, "recipes"), raw) if keys else raw
        if "labels" not in own:
            self._fail((*keys, "recipes"), "a network needs a recipe of labels")
        rewind = self._find((*keys, "rewind")) or self._value("rewind")
        recipes: dict[str, Recipe] = {}
        rewinds: dict[str, int] = {}
        for task, values in own.items():
            verb, _, part = data_parts(task)
            images = f"{data}:{part}" if part else data
            at = values.get("rewind")
            values = {name: value for name, value in values.items() if name != "rewind"}
            recipes[task] = self._recipe(values, images, verb, part, (*keys, "recipes", task))
            source = images if at else data
            chosen, layer, place = (at.value, at.layer, at.keys) if at else (*rewind, (*keys, "rewind"))
            rewinds[task] = self._samples(chosen, source, recipes[task].batch, layer, place)
        return Net(
            title=self._net_title(keys, data, arch),
            data=data,
            arch=arch,
            recipes=recipes,
            rewind=rewinds,
            natural_zeros=(self._find((*keys, "natural_zeros")) or self._value("natural_zeros", False))[0],
            images=self.known,
        )

    def _net_title(self, keys: Keys, data: str, arch: str) -> str:
        """The given title; or one of the data set and the network, if the title is the base's and these are not."""
        found, base = self._find((*keys, "title")), self.base
        if found is not None and (found[1] is not base or base is None):
            return found[0]
        if found is not None and base is not None:
            table = base.table(*keys)
            before = absolute(table.get("data", ""), base.tables["data"]) if keys else base.tables["data"]
            if (before, table["arch"]) == (data, arch):
                return found[0]
        return f"{data}, {arch_title(arch)}"

    def _archs(self, figure: str, main: Net, others: Mapping[str, Net]) -> tuple[str, ...]:
        """The networks of [unpruned]. Those that are the base's by role are the scale's of the same role."""
        found = self._find(("unpruned", figure))
        if found is None or not _are_names(found[0]):
            self._fail(("unpruned", figure), f"[unpruned] needs {figure}, a list of architectures")
        archs: list[str] = found[0]
        with _located(found[1], ("unpruned", figure)):
            for arch in archs:
                catalogue.check("architecture", catalogue.ARCHITECTURES, arch)
        base = self.base
        if base is None or found[1] is not base:
            return tuple(archs)
        roles: dict[str, str] = {base.tables["arch"]: main.arch}
        for name, net in others.items():
            roles.setdefault(base.table("nets", name).get("arch", net.arch), net.arch)
        return tuple(dict.fromkeys(roles.get(arch, arch) for arch in archs))

    # ------------------------------------------------------------------ recipes

    def _tasks(self, keys: Keys, before: Mapping[str, Raw]) -> dict[str, Raw]:
        """The recipes of a table, by task, on top of those ``before``.

        A new task of a layer begins with the recipe of labels in the layers below, without options; ``*`` comes first.
        """
        tasks: dict[str, Raw] = {task: dict(raw) for task, raw in before.items()}
        for layer in self.layers:
            table = layer.table(*keys)
            start = {name: field for name, field in tasks.get("labels", {}).items() if name in BEGIN}
            tasks |= {task: dict(start) for task in table if task != "*" and task not in tasks}
            for raw in tasks.values():
                self._add(raw, layer, (*keys, "*"), layer.table(*keys, "*"))
            for task, value in table.items():
                if value is False:
                    tasks.pop(task, None)
                elif task != "*":
                    self._check_task(layer, (*keys, task), task, value)
                    self._add(tasks[task], layer, (*keys, task), value)
        return tasks

    def _check_task(self, layer: _Layer, keys: Keys, task: str, value: object) -> None:
        with _located(layer, keys):
            if layer.keys and task in FIELDS:
                raise ValueError(f'task {task!r} is not known; did you mean labels.{task} or "*.{task}"?')
            verb, argument, part = data_parts(task)
            catalogue.check("task", catalogue.TASKS, f"{verb}/{argument}" if argument else verb)
            if part and verb not in ("labels", "s4l"):
                raise ValueError(f"{task}: only labels and s4l have recipes for a subset of the images")
        if not isinstance(value, Mapping):
            layer.fail(keys, f"{task} must be a table with a recipe, or false to leave it out, not {value!r:.80}")

    def _add(self, raw: Raw, layer: _Layer, keys: Keys, table: Table, known: Sequence[str] = FIELDS) -> None:
        """Put the fields of a layer's table, which is at ``keys``, on top of others."""
        for name, value in table.items():
            if name not in known:
                layer.fail((*keys, name), _unknown(name, known))
            if name == "options":
                if not isinstance(value, Mapping):
                    layer.fail((*keys, name), f"options must be a table, not {value!r:.80}")
                value = {**(raw["options"].value if "options" in raw else {}), **value}
            raw[name] = _Field(value, layer, (*keys, name))

    def _recipe(self, raw: Raw, data: str, verb: str, part: str, keys: Keys) -> Recipe:
        """The recipe of these fields, on ``data``. Raises ScaleError at the line of what the recipe refuses."""
        if lacking := [name for name in ("samples", "batch", "lr") if name not in raw]:
            self._fail(keys, f"the recipe {keys[-1]} needs {', '.join(lacking)}")
        values: dict[str, Any] = {}
        batch = raw["batch"].value if is_whole(raw["batch"].value) else 0
        for name, field in raw.items():
            value = _as_tuple(field.value)
            if name in LENGTHS:
                parts = value if isinstance(value, tuple) else (value,)
                parts = tuple(self._samples(one, data, batch, field.layer, field.keys) for one in parts)
                value = parts if isinstance(value, tuple) else parts[0]
            values[name] = value
        if values.get("pad") and catalogue.is_on_disk(data):
            field = raw["pad"]
            layer, place = (field.layer, field.keys) if field.layer is not self.base else (self.layers[-1], ("data",))
            layer.fail(
                place,
                f"{keys[-1]} pads images, and those of {whole(data)} stay on disk, where only crop is possible; for a "
                "folder, set size to 128 pixels or fewer; or else set pad = 0 and crop = 0.08 for its recipes",
            )
        if verb == "s4l" and part:
            values["options"] = {**values.get("options", {}), "labelled": part}
        with self._blamed(raw, keys):
            recipe = Recipe(**values)
            if verb in catalogue.OPTIONS:
                catalogue.made(verb, catalogue.OPTIONS[verb], recipe.options)
        return recipe

    def _samples(self, value: object, data: str, batch: int, layer: _Layer, keys: Keys) -> int:
        """A length in samples. Raises ScaleError for a length that can't be understood, or an unknown epoch."""
        if not _is_length(value):
            layer.fail(keys, f"{keys[-1]} must be {_LENGTH[1]}, not {value!r:.80}")
        if isinstance(value, int):
            return value
        with _located(layer, keys):
            return in_samples(str(value), batch, lambda: images_of(data, self.known))

    @contextmanager
    def _blamed(self, raw: Raw, keys: Keys) -> Iterator[None]:
        """Turn a ValueError into a ScaleError at the field that its message names."""
        try:
            yield
        except ValueError as error:
            self._blame(raw, keys, error)

    def _blame(self, raw: Raw, keys: Keys, error: ValueError) -> NoReturn:
        """Raise a ScaleError at the field that the error names, if a file or a change gives it; else at the table."""
        named = re.findall(r"\w+", str(error))
        own = [field for field in raw.values() if field.layer is not self.base]
        for field in sorted(own, key=lambda field: field.keys[-1] not in named)[:1]:
            places = field.keys
            if field.keys[-1] == "options":
                places = next(((*field.keys, name) for name in field.value if name in named), field.keys)
            field.layer.fail(places, f"{keys[-1]}: {error}" if field.keys[-2:-1] != (keys[-1],) else str(error))
        self._fail(keys, f"{keys[-1]}: {error}")

    # ------------------------------------------------------------------ tests of features

    def _probe(self, keys: Keys, kind: type[Probe] = Probe) -> Any:
        """A table of [linear], or [finetune]. What stands in [linear] itself is for all its tests."""
        svms = kind is Probe and any("costs" in layer.table(*keys) for layer in self.layers)
        fields = SVMS if svms else RECIPE
        raw: Raw = {}
        for layer in self.layers:
            shared = layer.table("linear") if kind is Probe else {}
            self._add(raw, layer, ("linear",), {name: shared[name] for name in fields if name in shared}, fields)
            own = layer.table(*keys)
            self._check(layer, keys, PROBE, but=fields)
            self._add(raw, layer, keys, {name: own[name] for name in fields if name in own}, fields)
        data, of_scale = self._data(keys)
        title = self._title(keys, keys[-1] if kind is Probe else f"fine-tuned on {data}", of_scale)
        metric = self._find((*keys, "metric"))
        if svms:
            values: dict[str, Any] = {name: _as_tuple(field.value) for name, field in raw.items()}
            with self._blamed(raw, keys):
                recipe: Recipe | SVM = SVM(**values)
        else:
            recipe = self._recipe(raw, data, "labels", "", keys)
        kept: Any = recipe  # a Target has no SVM, and gets none here
        return kind(title=title, data=data, recipe=kept, metric=metric[0] if metric else "map" if svms else "top1")

    def _run(self, name: str, labels: Raw) -> tuple[str, tuple[str, Recipe]]:
        """A training of [unpruned]: its title, data set, and recipe, which begins with that of labels."""
        keys, raw = ("unpruned", name), {field: value for field, value in labels.items() if field != "rewind"}
        for layer in self.layers:
            table = layer.table(*keys)
            self._check(layer, keys, {"data": _NAME, "images": _COUNT}, but=RECIPE)
            self._add(raw, layer, keys, {field: table[field] for field in RECIPE if field in table})
        data, of_scale = self._data(keys)
        return self._title(keys, name, of_scale), (data, self._recipe(raw, data, "labels", "", keys))


def _sized(data: str, size: int, layer: _Layer, keys: Keys) -> str:
    """A folder of images at a size in pixels, as its name says it: ``folder/pets:64px``."""
    source, argument, subset = data_parts(data)
    if source != "folder" or re.search(":[0-9]+px$", argument):
        layer.fail(keys, f"size is for a folder of images whose name has none, such as folder/pets, not for {data}")
    return f"{source}/{argument}:{size}px{subset and f':{subset}'}"


@contextmanager
def _located(layer: _Layer, keys: Keys) -> Iterator[None]:
    """Turn a ValueError into a ScaleError at the line of ``keys``."""
    try:
        yield
    except ValueError as error:
        layer.fail(keys, str(error))


def in_samples(length: str, batch: int, epoch: Callable[[], int]) -> int:
    """Return a length such as ``24 epochs``, ``500 updates`` or ``30000 samples`` in samples. Raises ValueError.

    epoch: gives the number of training images; it is called if the length is in epochs.
    """
    match = LENGTH.fullmatch(length)
    if match is None:
        raise ValueError(f"must be {_LENGTH[1]}, not {length!r:.80}")
    unit = epoch() if match[2] == "epoch" else batch if match[2] == "update" else 1
    return round(Fraction(match[1].replace("_", "")) * unit)


def _as_tuple(value: Any) -> Any:
    """A list of a file as a recipe takes it."""
    return tuple(value) if isinstance(value, list) else value


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}? Known" if near else "known"
    return f"there is no key {key}; {hint}: {', '.join(known)}"


def _is_known(data: str, count: int) -> bool:
    """True if the package itself counts as many training images."""
    try:
        return images_of(data) == count
    except Unfit:
        return False
