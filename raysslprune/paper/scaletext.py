"""Scales as plain values, and as the text of a TOML file with comments: the inverse of :mod:`paper.scalefile`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from fractions import Fraction
from typing import Any

from raysslprune.catalogue import data_parts
from raysslprune.paper.scales import SETTINGS, Net, Probe, Setting, images_of, whole
from raysslprune.spec import SVM, Recipe
from raysslprune.sweepfile import Unfit

Table = Mapping[str, Any]

LENGTHS = ("samples", "warmup", "decay_at")
"""Fields of a recipe that are counted in samples. In a file they may be in epochs or updates, as the rewind may."""

FIELDS = [*(one.name for one in fields(Recipe)), "rewind"]
"""Keys of a recipe in a file."""

BEGIN = [name for name in FIELDS if name not in ("options", "rewind")]
"""What a new task takes from the recipe of labels."""


def absolute(text: str, data: str) -> str:
    """The data set that a table names. ``:SUBSET`` is a part of ``data``, ``*`` is ``data`` without its subset."""
    if not text or text.startswith(":"):
        return data + text
    return whole(data) + text[1:] if text.startswith("*") else text


def relative(name: str, data: str) -> str:
    """The inverse of :func:`absolute`: '' for ``data`` itself; the name itself for another data set."""
    if name == data or name.startswith(f"{data}:"):
        return name.removeprefix(data)
    return f"*{name.removeprefix(whole(data))}" if whole(name) == whole(data) else name


def plain(setting: Setting) -> dict[str, Any]:
    """A scale as the tables of a file: lengths in epochs if these are known, data sets relative to the scale's own."""
    main, known = setting.net, setting.images
    recipes = _recipes(main, setting)
    return {
        "title": main.title,
        "data": main.data,
        "images": main.images_of(),
        "arch": main.arch,
        "natural_zeros": main.natural_zeros,
        "levels": list(setting.levels),
        "keep": setting.keep,
        "rewind": _rewind(main, known),
        "seeds": setting.seeds,
        "margin": setting.margin,
        "gpus": setting.gpus,
        "recipes": _shared(recipes),
        "nets": {role: _plain_net(net, setting, recipes) for role, net in setting.others.items()},
        "linear": {probe.title: _plain_probe(probe, setting) for probe in setting.linear},
        "finetune": {"title": setting.finetune.title, **_plain_probe(setting.finetune, setting)},
        "unpruned": {
            **{figure: list(archs) for figure, archs in setting.unpruned_archs.items()},
            **{
                title: {
                    **_plain_data(data, setting),
                    **_difference(recipes["labels"], _plain_recipe(recipe, data, known)),
                }
                for title, (data, recipe) in setting.unpruned.items()
            },
        },
    }


def _plain_net(net: Net, setting: Setting, recipes: Mapping[str, Table]) -> dict[str, Any]:
    """A further network: what differs from the main one."""
    main, known = setting.net, setting.images
    own, found = _recipes(net, setting), {"title": net.title, "arch": net.arch, **_plain_data(net.data, setting)}
    if net.natural_zeros != main.natural_zeros:
        found["natural_zeros"] = net.natural_zeros
    if _rewind(net, known) != _rewind(main, known):
        found["rewind"] = _rewind(net, known)
    tasks: dict[str, Any] = {task: False for task in recipes if task not in own}
    new = {name: value for name, value in recipes["labels"].items() if name in BEGIN}
    changed = {task: _difference(recipes.get(task, new), recipe) for task, recipe in own.items()}
    tasks |= {task: recipe for task, recipe in changed.items() if recipe}
    return {**found, "recipes": tasks} if tasks else found


def _plain_probe(probe: Probe, setting: Setting) -> dict[str, Any]:
    svms = isinstance(probe.recipe, SVM)
    metric = {} if probe.metric == ("map" if svms else "top1") else {"metric": probe.metric}
    return {**_plain_data(probe.data, setting), **metric, **_plain_recipe(probe.recipe, probe.data, setting.images)}


def _plain_data(data: str, setting: Setting) -> dict[str, Any]:
    name = relative(data, setting.data)
    counted = {"images": setting.counts[data]} if data in setting.counts and data != setting.data else {}
    return {**({"data": name} if name else {}), **counted}


def _recipes(net: Net, setting: Setting) -> dict[str, dict[str, Any]]:
    """The recipes of a network as plain values; with their rewinds, if those of any network differ in samples."""
    known, found = setting.images, dict[str, dict[str, Any]]()
    differ = any(len(set(one.rewind.values())) > 1 for one in setting.nets.values())
    for task, recipe in net.recipes.items():
        verb, _, part = data_parts(task)
        data = f"{net.data}:{part}" if part else net.data
        found[task] = _plain_recipe(recipe, data, known)
        if verb == "s4l" and part:
            options = {name: value for name, value in found[task]["options"].items() if name != "labelled"}
            found[task] = {name: value for name, value in found[task].items() if name != "options"}
            found[task] |= {"options": options} if options else {}
        if differ:
            found[task]["rewind"] = _length(net.rewind[task], data, known)
    return found


def _rewind(net: Net, known: Mapping[str, int]) -> str | int:
    return _length(net.rewind["labels"], net.data, known)


def _plain_recipe(recipe: Recipe | SVM, data: str, known: Mapping[str, int]) -> dict[str, Any]:
    """The fields of a recipe that are not at their defaults."""
    found: dict[str, Any] = {}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if value == field.default:
            continue
        if field.name in LENGTHS:
            parts = [_length(part, data, known) for part in (value if isinstance(value, tuple) else (value,))]
            value = parts if isinstance(value, tuple) else parts[0]
        elif field.name == "options":
            value = dict(value)
        found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def _length(samples: int, data: str, known: Mapping[str, int]) -> str | int:
    """A length in epochs, exactly; in samples if the number of images is not known."""
    try:
        epochs = Fraction(samples, images_of(data, known))
    except Unfit:
        return samples
    number = f"{float(epochs):.10g}" if 10_000 % epochs.denominator == 0 else str(epochs)
    return f"{number} epoch{'s' * (epochs != 1)}"


def _difference(before: Table, after: Table) -> dict[str, Any]:
    """What to write on top of one recipe to get another, in the order of a recipe's fields."""
    defaults = {one.name: [] if one.default == () else one.default for one in fields(Recipe)}
    wanted = {**{name: defaults[name] for name in before if name in defaults}, **after}
    return {name: wanted[name] for name in FIELDS if name in wanted and before.get(name, MISSING) != wanted[name]}


def _shared(recipes: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The recipes with what all of them have in common as ``*``."""
    first, *others = recipes.values()
    common = {name: value for name, value in first.items() if all(recipe.get(name) == value for recipe in others)}
    own = {task: {k: v for k, v in recipe.items() if k not in common} for task, recipe in recipes.items()}
    return {"*": common, **own} if common and others else dict(recipes)


# ------------------------------------------------------------------------------------- a scale as text

ABOUT = {
    "title": "of the main network, in figures",
    "data": "the data set, which all tables use that name no other",
    "images": "its training images; they are the length of an epoch, and are compared with the data",
    "arch": "the main network",
    "natural_zeros": "true: many weights vanish in training, so random masks without these are compared too",
    "levels": "numbers of prunings that figures show",
    "keep": "fraction of the remaining weights that a pruning keeps",
    "rewind": "for all tasks",
    "seeds": "without --seeds",
    "margin": "points of accuracy that do not matter, where a claim says that two curves are as good as each other",
    "gpus": "of a worker, from 0 to 1, without --gpus-per-worker",
}
"""Comments on the keys of a file."""

SECTIONS = {
    "recipes": "Recipes by task. What stands below * is for all tasks. Keys, and what holds where they are missing:",
    "nets": "Networks that figures have beside the main one: their title and arch, and what differs from the main one.",
    "linear": "Figure 1: tests of frozen features. What stands in [linear] itself is for all of them.",
    "finetune": "Figure 2: the test that fine-tunes networks. It should have few images.",
    "unpruned": "Figures 6 and 10: their networks, and trainings on labels by title, on top of the recipe labels.",
}
"""Comments on the tables of a file."""

HEAD = """\
# All of the scale {name}. Change it, save it as a file such as pets.toml, and use it by --scale pets.toml.
# A file that begins with base = "{base}" needs only what differs from that scale.
# Lengths are "12 epochs", "30000 samples" or "500 updates". An epoch is as long as the data set that a recipe is for:
# recipes of labels and s4l for a subset count the images of this subset.
# As data of a table, ":10%-of-images" is that part of the scale's data; "*:1%-of-images" of its data set as a whole.
"""


def text(name: str) -> str:
    """A scale as a complete file, with comments. name: as :func:`paper.scalefile.scale` returns it."""
    tables = plain(SETTINGS[name])
    base = name if name in SETTINGS else "laptop"
    lines = [HEAD.format(name=name, base=base)]
    lines += [f"{key} = {toml(tables.pop(key))}  # {about}" for key, about in ABOUT.items()]
    for section, table in tables.items():
        about = "\n".join(f"# {line}" for line in _about(section))
        lines.append("\n" + about + "\n" + "\n\n".join(_blocks((section,), table)))
    return "\n".join(lines) + "\n"


def _about(section: str) -> Iterator[str]:
    yield SECTIONS[section]
    if section == "recipes":
        optional = [(f.name, f.default) for f in fields(Recipe) if f.default is not MISSING and f.name != "options"]
        yield "samples, batch and lr (always needed); options = {}, those of the task;"
        words = ""
        for name, value in optional:
            word = f"{name} = {toml(list(value) if isinstance(value, tuple) else value)}"
            if len(words) + len(word) > 110:
                yield f"{words},"
                words = ""
            words += f", {word}" if words else word
        yield words


def _blocks(keys: tuple[str, ...], table: Table) -> Iterator[str]:
    """The text of a table: its values, then the tables in it."""
    inner = {name: value for name, value in table.items() if isinstance(value, Mapping) and name != "options"}
    values = [f"{_key(name)} = {toml(value)}" for name, value in table.items() if name not in inner]
    if values or not inner:
        yield "\n".join([f"[{'.'.join(map(_key, keys))}]", *values])
    for name, value in inner.items():
        yield from _blocks((*keys, name), value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name, ensure_ascii=False)


def toml(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:_}" if isinstance(value, int) else repr(value)
