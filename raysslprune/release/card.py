"""Write the README of an exported folder, a model card: description, history, results and limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from raysslprune import masks
from raysslprune.catalogue import ARCHITECTURES, VALIDATION, shown_metrics
from raysslprune.release import subnetwork
from raysslprune.release.contents import ONNX, Release, Size
from raysslprune.release.shrink import IMAGES, Shrunk
from raysslprune.spec import External, Final, Imported, Init, Mask, RandomPrune, Rewind, Shuffle, Step, Train
from raysslprune.table import Table, markdown
from raysslprune.words import how_made, judged, recipe_in_words, result_of, size

METRICS = {
    "top1": "accuracy, in percent",
    "map": "mean average precision, in percent",
    "rotation_top1": "accuracy in telling four quarter turns apart, in percent; chance is 25",
    "triplet_accuracy": "how often a view is nearer to one of the same image, in percent; chance is 50",
    "knn_top1": "accuracy of the 200 nearest training images, in percent",
    "feature_std": "how widely the directions of the features are spread: 0 if all are one, 1 if they are uniform",
    "feature_rank": "number of directions that the features use, as their effective rank",
    "embedding_std": "how widely the directions of the head's outputs are spread: 0 if all are one, 1 if uniform",
    "embedding_rank": "number of directions that the head's outputs use, as their effective rank",
    "train_loss": "loss in the last epoch of the training",
    "collapsed_layers": "layers with no weight left",
    "natural_sparsity": "weights that training alone made zero, in percent",
}
"""Meaning of a training's metrics, the first nine on test images, or with VALIDATION at their end on held-out images.

A user's own task may have others.
"""

OUTPUTS = {
    "labels": "a score (logit) for each class, in the order of the data set's classes",
    "rotnet": "a score (logit) for each of four quarter turns",
    "s4l": "a score (logit) for each class, then one for each of four quarter turns",
    "exemplar": "an embedding, to be compared by its cosine",
    "npid": "an embedding, to be compared by its cosine",
}
"""Meaning of a network's outputs, by task. The heads of other tasks are not exported."""

FILES = {
    subnetwork.MODEL: "all weights, pruned ones 0",
    subnetwork.SPARSE: "for each pruned layer a bitmap and the weights that stay",
    subnetwork.MASK: "which weights stay, one bit each",
    subnetwork.SHRUNK: "the network without its pruned filters, smaller and dense",
}

UNSTRUCTURED = """\
- The zeros are unstructured: files and, with sparse kernels, memory get smaller, while the usual dense kernels take as
  long as before.
"""
WHOLE_FILTERS = """\
- Whole filters are pruned, with their biases and batch-norm's scales and shifts. The usual kernels are faster only with
  the smaller network, `shrunk.safetensors`, which `raysslprune export --shrink` writes.
"""
LIMITS = """\
## Limits

{zeros}\
- The numbers above are of one training with one seed, on the test images of one data set. Nothing is known about other
  images, nor about images that the dense network gets right and the pruned one gets wrong.
- Only convolutions, and linear layers but the last one, are pruned; biases, batch-norm and the last layer are not."""

LOAD = """\
import raysslprune

net = raysslprune.load_subnetwork("path/to/this/folder")
outputs = net(net.preprocess(images))"""

LOAD_MASK = """\
import raysslprune

mask = raysslprune.load_mask("path/to/this/folder")"""


def card(made: Release, sizes: Mapping[str, Size], onnx: bool) -> str:
    """Write the card as Markdown, with front matter for Hugging Face; the licence is left to the publisher."""
    parts = [_front_matter(made), _title(made), _use(made, onnx), _pruned(made), _results(made), _layers(made)]
    parts += [_sizes(sizes), _limits(made.step) if made.at is None else "", _provenance(made)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(made: Release) -> str:
    lines = ["---", "library_name: raysslprune", "tags:", "- pruning", "- sparsity", "- lottery-ticket"]
    if isinstance(made.step, Train):
        lines += ["datasets:", f"- {json.dumps(made.step.data)}"]  # a JSON string is a YAML one
    return "\n".join([*lines, "# license: yours to choose; respect those of the data", "---"])


def _title(made: Release) -> str:
    step, density = made.step, masks.density(made.mask)
    left = sum(int(m.sum()) for m in made.mask.values())
    of = sum(m.numel() for m in made.mask.values())
    if not isinstance(step, Train):
        return (
            f"# A mask for {made.arch}: {100 * density:.4g}% of the weights stay\n\n"
            f"Which {left:,} of {of:,} prunable weights of `{made.arch}` stay; the weights themselves are not included."
        )
    what = "Linear classifier on the frozen features of a" if step.trunk_frozen else "A"
    return (
        f"# {made.arch} on {step.data}, {100 * density:.4g}% of its weights left\n\n"
        f"{what} convolutional network, `{made.arch}`, with {left:,} of {of:,} prunable weights left (density "
        f"{density:.6g}), {_when(made)} task `{step.task}` with images of `{step.data}`."
    )


def _when(made: Release) -> str:
    if made.at is None:
        return "trained on"
    return f"with the weights that its chain had after {made.at:,} samples, before it was trained under this mask on"


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
        f"mean {_numbers(images.mean)}, standard deviation {_numbers(images.std)}. `net` itself takes images "
        f"normalised like this, as in training. `outputs`: {_outputs(made)}. `net.trunk` gives features. "
        "Nothing is unpickled."
    )
    if code := _torchvision_lines(made):
        text += f"\n\nOr without raysslprune, in torchvision, for normalised images:\n\n```python\n{code}\n```"
    if onnx:
        text += (
            f"\n\n`{ONNX}` has the same network: from `images`, normalised, float32 "
            f"(batch, {images.channels}, {images.size}, {images.size}), to `outputs`."
        )
    if made.shrunk is not None:
        text += (
            f"\n\n`load_subnetwork(path, shrunk=True)` loads the smaller network, {speed_up(made.shrunk)} Its outputs "
            f"differ by {made.shrunk.largest_difference:.1g} at most."
        )
    return text


def speed_up(shrunk: Shrunk) -> str:
    """Say in a sentence how much smaller and faster a network has become."""
    (many, few), (slow, fast) = shrunk.parameters, shrunk.seconds
    return (
        f"{few:,} of {many:,} parameters, {slow / fast:.3g} times as fast: {1000 * fast:.3g} instead of "
        f"{1000 * slow:.3g} ms for {IMAGES} images on the CPU that exported it."
    )


def _limits(step: Step) -> str:
    if not isinstance(step, Train):
        return ""
    return LIMITS.format(zeros=WHOLE_FILTERS if step.prunes_filters else UNSTRUCTURED)


def _outputs(made: Release) -> str:
    assert isinstance(made.step, Train)
    if made.head is None:
        return "features: the task's head is more than a last layer and is not included"
    meaning = OUTPUTS.get(made.step.task, f"the outputs of task {made.step.task}")
    return f"{made.head['outputs']} numbers: {meaning}"


def _torchvision_lines(made: Release) -> str:
    """Lines of code that load the weights into torchvision's own network; '' if torchvision has no such network."""
    arch, head = made.arch.removesuffix("-cifar"), made.head
    if head is None or head["kind"] != "linear" or made.arch not in subnetwork.LAST or arch == "alexnet-bn":
        return ""
    if made.channels != 3 and arch == made.arch:
        return ""
    outputs, features = head["outputs"], head["features"]
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
    if made.at is not None:
        sentences.append(f"The weights here are not the trained ones, but those after {made.at:,} samples.")
    number = {one: f"#{n}" for n, one in enumerate(made.behind, 1)}
    recipes: dict[str, str] = {}
    rows: list[Sequence[str]] = []
    for one in made.behind:
        words = recipe_in_words(one) if isinstance(one, Train) else ""
        recipe = recipes.setdefault(words, f"R{len(recipes) + 1}") if words else ""
        record = made.records.get(one.id)  # None for a training of which only the first weights were read
        result, left, *_ = result_of(record) if record else ("not trained", "")
        what = _imported(one, made) if isinstance(one, External) else how_made(one, number, recipe)
        rows.append((number[one], f"`{one.id}`", what, result, left))
    table = markdown(Table.of(("", "step", "what", "result", "left"), rows))
    text = f"## How it was made\n\n{' '.join(sentences)} All steps, in order:\n\n{table}"
    return text + "".join(f"\n\n{key}: {recipe}." for recipe, key in recipes.items())


def _how(mask: Mask | None, made: Release) -> str:
    if mask is None:
        return "Nothing is pruned."
    if isinstance(mask, Shuffle):
        return f"{_how(mask.of, made)} The mask is then shuffled within each layer (a control)."
    if isinstance(mask, Imported):
        return f"The mask was made elsewhere: it is {_imported(mask, made)}."
    if isinstance(mask, RandomPrune):
        but = ", and none that was 0 after the dense training" if mask.nonzero is not None else ""
        by_erk = ", shared among the layers by Erdős-Rényi-Kernel" if mask.allocation == "erk" else ""
        return (
            f"The mask is random: of the weights in scope `{mask.scope}` it keeps as many as {mask.level} prunings "
            f"that keep {100 * mask.keep:g}% each would leave{but}{by_erk}."
        )
    behind = mask.rounds
    first = behind[-1].of
    shares = " ".join(dict.fromkeys(f"{100 * one.keep:g}%" for one in behind))
    times, each = ("once", "") if len(behind) == 1 else (f"{len(behind)} times", " each time")
    after = f"a training on task `{first.task}` with images of `{first.data}`{each}" if isinstance(first, Train) else ""
    source = f"after {after}" if after else "from imported weights"
    if how := judged(mask):
        return f"Pruned {times}, {source}{how}: of the weights left in scope `{mask.scope}` {shares} stay."
    sentence = (
        f"Pruned by magnitude {times}, {source}: "
        f"of the weights left in scope `{mask.scope}` the largest {shares} stay, over all layers together."
    )
    again = mask.of.start if isinstance(mask.of, Train) else None
    if len(behind) > 1 and isinstance(again, Rewind):
        sentence += f" Each later training began with the weights of the first after {again.samples:,} samples."
    return sentence


def _start(step: Train) -> str:
    match step.start:
        case Init():
            begins = "weights drawn at random"
        case Rewind(of=of, samples=samples):
            begins = f"the weights that a training on `{of.task}` had after {samples:,} samples"
        case Final(of=of):
            begins = f"the final weights of a training on `{of.task}`" if isinstance(of, Train) else "imported weights"
    frozen = "; only its last layer was trained" if step.trunk_frozen else ""
    return f"This network was then trained from {begins}{frozen}."


def _imported(step: External, made: Release) -> str:
    source = made.records[step.id].facts.get("source", "")
    return f"from the file `{source}`, SHA-256 of the {step.CONTENT} {step.digest}"


def _meaning(metric: str) -> str:
    held_out = ", on training images that were held out" if metric.endswith(VALIDATION) else ""
    return METRICS.get(metric.removesuffix(VALIDATION), "") + held_out


def _results(made: Release) -> str:
    if not isinstance(made.step, Train) or made.at is not None:
        return ""
    shown = shown_metrics(made.record.metrics)
    rows = [
        (f"`{name}`", f"{value:.6g}", _meaning(name))
        for name, value in shown.items()
        if not name.startswith("density")  # densities are elsewhere in the card
    ]
    return f"## Results\n\n{markdown(Table.of(('metric', 'value', ''), rows))}"


def _layers(made: Release) -> str:
    rows: list[Sequence[str]] = []
    for name, m in made.mask.items():
        left, share = int(m.sum()), float(100 * m.float().mean())
        rows.append((f"`{name}`", "x".join(map(str, m.shape)), f"{left:,}", f"{m.numel():,}", f"{share:.4g}"))
    return f"## Density of each layer\n\n{markdown(Table.of(('weights', 'shape', 'left', 'of', '%'), rows))}"


def _sizes(sizes: Mapping[str, Size]) -> str:
    dense = sizes[subnetwork.MODEL].plain if subnetwork.MODEL in sizes else 0
    part = (lambda count: f"{size(count)} ({100 * count / dense:.3g}%)") if dense else size
    rows = [(f"`{n}`", FILES[n], part(s.plain), part(s.gzipped)) for n, s in sizes.items()]
    return f"## Size\n\n{markdown(Table.of(('file', 'holds', 'bytes', 'after gzip'), rows))}"


def _provenance(made: Release) -> str:
    facts = made.record.facts
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    device = f" on {facts['device']}" if "device" in facts else ""
    return (
        f"## Provenance\n\nStep `{made.step.id}` of raysslprune, made{device} with {versions}. A step's id is a hash "
        "of everything that its result depends on: tasks, names of data sets, recipes, seeds, and the steps before it."
    )


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
