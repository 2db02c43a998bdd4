"""The README of an exported folder, a model card: what it is, how it came about, how good it is, its limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from raysslprune import masks
from raysslprune.catalogue import ARCHITECTURES, shown_metrics
from raysslprune.release import contents, subnetwork
from raysslprune.release.contents import Release, Size
from raysslprune.spec import Final, Imported, Init, Mask, RandomPrune, Rewind, Shuffle, Train, prunings
from raysslprune.words import how_made, recipe_in_words, result_of, size

METRICS = {
    "top1": "accuracy, in percent",
    "map": "mean average precision, in percent",
    "rotation_top1": "accuracy in telling four quarter turns apart, in percent; chance is 25",
    "triplet_accuracy": "how often a view is nearer to one of the same image, in percent; chance is 50",
    "knn_top1": "accuracy of the 200 nearest training images, in percent",
    "train_loss": "loss in the last epoch of the training",
    "collapsed_layers": "layers with no weight left",
    "natural_sparsity": "weights that training alone made zero, in percent",
}
"""What a training's metrics mean, the first five on test images. A task of one's own may have others."""

HIDDEN_PREFIXES = "density"
"""How metrics begin that stand elsewhere in the card."""

LIMITS = """\
## Limits

- The zeros are unstructured: files and, with sparse kernels, memory get smaller, while the usual dense kernels take as
  long as before.
- The numbers above are of one training with one seed, on the test images of one data set. Nothing is known of other
  images, nor of what the pruned network gets wrong that the dense one got right.
- Only convolutions, and linear layers but the last one, are pruned; biases, batch-norm and the last layer are not."""


LOAD = """\
import raysslprune

net = raysslprune.load_subnetwork("path/to/this/folder")
outputs = net(net.preprocess(images))"""

LOAD_MASK = """\
from raysslprune.release.subnetwork import load_mask

mask = load_mask("path/to/this/folder")"""


def card(made: Release, sizes: Mapping[str, Size], onnx: bool) -> str:
    """The card as Markdown, with front matter as Hugging Face reads it; the licence is left to whoever publishes it."""
    parts = [_front_matter(made), _title(made), _use(made, onnx), _pruned(made), _results(made), _layers(made)]
    parts += [_sizes(sizes), LIMITS if isinstance(made.step, Train) else "", _provenance(made)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(made: Release) -> str:
    step = made.step
    lines = ["library_name: raysslprune", "tags:", "- pruning", "- sparsity", "- lottery-ticket"]
    if isinstance(step, Train):
        lines += ["datasets:", f"- {json.dumps(step.data)}"]  # a JSON string is a YAML one
    lines += ["# license: yours to choose; mind those of the data"]
    return "\n".join(["---", *lines, "---"])


def _title(made: Release) -> str:
    step, density = made.step, masks.density(made.mask)
    left = sum(int(m.sum()) for m in made.mask.values())
    of = sum(m.numel() for m in made.mask.values())
    if not isinstance(step, Train):
        return (
            f"# A mask for {made.arch}: {100 * density:.4g}% of the weights stay\n\n"
            f"Which {left:,} of {of:,} prunable weights of `{made.arch}` stay; the weights themselves are not here."
        )
    what = "Linear classifier on the frozen features of a" if step.trunk_frozen else "A"
    return (
        f"# {made.arch} on {step.data}, {100 * density:.4g}% of its weights left\n\n"
        f"{what} convolutional network, `{made.arch}`, with {left:,} of {of:,} prunable weights left (density "
        f"{density:.6g}), trained on task `{step.task}` with images of `{step.data}`."
    )


def _use(made: Release, onnx: bool) -> str:
    if not isinstance(made.step, Train):
        return (
            f"## Use\n\n```python\n{LOAD_MASK}\n```\n\n`mask` is a dictionary from the names of weights, which are "
            "torchvision's where it has such a network, to bool tensors, True where the weight stays. "
            "`raysslprune.to_torch_prune(module, mask)` prunes a module by it."
        )
    images = made.images
    assert images is not None
    lines = LOAD if made.arch in ARCHITECTURES else LOAD.replace('folder")', 'folder", trunk=...)')
    text = (
        f"## Use\n\n```python\n{lines}\n```\n\n"
        f"`images`: uint8, (n, {images.channels}, {images.size}, {images.size}), from 0 to {images.white:g}. "
        "`net.preprocess` subtracts the mean and divides by the standard deviation of each channel, on that scale: "
        f"mean {_numbers(images.mean)}, standard deviation {_numbers(images.std)}. `net` itself takes images so "
        f"normalised, as it did in training. `outputs`: {contents.outputs(made)}. `net.trunk` gives features. "
        "Nothing is unpickled."
    )
    if lines_of := torchvision_lines(made):
        text += f"\n\nOr without raysslprune, by torchvision, for normalised images:\n\n```python\n{lines_of}\n```"
    if onnx:
        text += (
            f"\n\n`{contents.ONNX}` has the same network: from `images`, normalised, float32 "
            f"(batch, {images.channels}, {images.size}, {images.size}), to `outputs`."
        )
    return text


def torchvision_lines(made: Release) -> str:
    """How torchvision's own network gets the weights; empty where it has no such network."""
    plain = made.head is not None and made.head["kind"] == "linear"
    arch, last = made.arch.removesuffix("-cifar"), subnetwork.LAST.get(made.arch)
    if not plain or last is None or arch == "alexnet-bn" or (made.channels != 3 and arch == made.arch):
        return ""
    assert made.head is not None
    outputs, features = made.head["outputs"], made.head["features"]
    vgg = arch.startswith("vgg")
    lines = ["import torch", "import torchvision", "from safetensors.torch import load_file", ""]
    lines += [f"model = torchvision.models.{arch}{'_bn' * vgg}(num_classes={outputs})"]
    if arch != made.arch:
        lines += [f"model.conv1 = torch.nn.Conv2d({made.channels}, 64, 3, padding=1, bias=False)"]
        lines += ["model.maxpool = torch.nn.Identity()"]
    if vgg:
        lines += ["model.avgpool = torch.nn.AdaptiveAvgPool2d(1)"]
        lines += [f"model.classifier = torch.nn.Linear({features}, {outputs})"]
    return "\n".join([*lines, f'model.load_state_dict(load_file("{subnetwork.MODEL}"))', "model.eval()"])


def _pruned(made: Release) -> str:
    step = made.step
    mask = step.mask if isinstance(step, Train) else step
    assert mask is None or isinstance(mask, Mask)
    sentences = [_how(mask, made)]
    if isinstance(step, Train):
        sentences.append(_start(step))
    number = {one: f"#{n}" for n, one in enumerate(made.behind, 1)}
    recipes: dict[str, str] = {}
    rows: list[Sequence[str]] = []
    for one in made.behind:
        words = recipe_in_words(one) if isinstance(one, Train) else ""
        recipe = recipes.setdefault(words, f"R{len(recipes) + 1}") if words else ""
        record = made.records[one.id]
        result, left, *_ = result_of(record)
        what = _imported(one, made) if isinstance(one, Imported) else how_made(one, number, recipe)
        rows.append((number[one], f"`{one.id}`", what, result, left))
    table = _table(("", "step", "what", "result", "left"), rows)
    text = f"## How it came about\n\n{' '.join(sentences)} All steps, in order:\n\n{table}"
    return text + "".join(f"\n\n{key}: {recipe}." for recipe, key in recipes.items())


def _how(mask: Mask | None, made: Release) -> str:
    if mask is None:
        return "Nothing is pruned."
    if isinstance(mask, Shuffle):
        return f"{_how(mask.of, made)} The mask is then shuffled within each layer (a control)."
    if isinstance(mask, Imported):
        return f"The mask was found elsewhere: {_imported(mask, made)}."
    if isinstance(mask, RandomPrune):
        but = ", and none that was 0 after a dense training" if mask.nonzero is not None else ""
        return (
            f"The mask is random: of the weights in scope `{mask.scope}` it keeps as many as {mask.level} prunings "
            f"would that keep {100 * mask.keep:g}% each{but}."
        )
    behind = prunings(mask)
    first = behind[-1].of
    shares = " ".join(dict.fromkeys(f"{100 * one.keep:g}%" for one in behind))
    times, each = ("once", "") if len(behind) == 1 else (f"{len(behind)} times", " each time")
    sentence = (
        f"Pruned by magnitude {times}, after a training on task `{first.task}` with images of `{first.data}`{each}: "
        f"of the weights left in scope `{mask.scope}` the largest {shares} stay, over all layers together."
    )
    again = mask.of.start
    if len(behind) > 1 and isinstance(again, Rewind):
        sentence += f" Each began with the weights that the dense one had after {again.samples:,} samples."
    return sentence


def _start(step: Train) -> str:
    match step.start:
        case Init():
            begins = "weights drawn at random"
        case Rewind(of=of, samples=samples):
            begins = f"the weights that a training on `{of.task}` had after {samples:,} samples"
        case Final(of=of):
            begins = f"the final weights of a training on `{of.task}`"
    frozen = "; only its last layer was changed" if step.trunk_frozen else ""
    return f"The network here was then trained from {begins}{frozen}."


def _imported(step: Imported, made: Release) -> str:
    return f"from the file `{made.records[step.id].facts.get('source', '')}`, SHA-256 of the mask {step.digest}"


def _results(made: Release) -> str:
    if not isinstance(made.step, Train):
        return ""
    shown = {
        name: value
        for name, value in shown_metrics(made.record.metrics).items()
        if not name.startswith(HIDDEN_PREFIXES)
    }
    rows = [(f"`{name}`", f"{value:.6g}", METRICS.get(name, "")) for name, value in shown.items()]
    return f"## Results\n\n{_table(('metric', 'value', ''), rows)}"


def _layers(made: Release) -> str:
    rows = [
        (
            f"`{name}`",
            "x".join(map(str, m.shape)),
            f"{int(m.sum()):,}",
            f"{m.numel():,}",
            f"{100 * m.float().mean():.4g}",
        )
        for name, m in made.mask.items()
    ]
    return f"## Density of each layer\n\n{_table(('weights', 'shape', 'left', 'of', '%'), rows)}"


def _sizes(sizes: Mapping[str, Size]) -> str:
    about = {
        subnetwork.MODEL: "all weights, pruned ones 0",
        subnetwork.SPARSE: "of pruned layers a bitmap and the weights that stay",
        subnetwork.MASK: "which weights stay, one bit each",
    }
    dense = sizes[subnetwork.MODEL].plain if subnetwork.MODEL in sizes else 0
    part = (lambda count: f"{size(count)} ({100 * count / dense:.3g}%)") if dense else size
    rows = [(f"`{n}`", about[n], part(s.plain), part(s.gzipped)) for n, s in sizes.items()]
    return f"## Size\n\n{_table(('file', 'holds', 'bytes', 'behind gzip'), rows)}"


def _provenance(made: Release) -> str:
    facts = made.record.facts
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    device = f" on {facts['device']}" if "device" in facts else ""
    return (
        f"## Provenance\n\nStep `{made.step.id}` of raysslprune, made{device} with {versions}. A step's id is a hash "
        "of all that its result depends on: tasks, data by name, recipes, seeds, and the steps behind it."
    )


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
