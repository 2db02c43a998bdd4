"""Parts of a training set against a plain loop, and for ever the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raysslprune import catalogue, data
from raysslprune.data import Dataset, Resident, subsets


def labelled(*labels: int, test: tuple[int, ...] = (0,)) -> Dataset:
    """Grey 1x1 images whose pixel is their position."""

    def split(values: tuple[int, ...]) -> Resident:
        images = torch.arange(len(values)).view(-1, 1, 1, 1)
        return Resident(images=images, labels=torch.tensor(values))

    one = torch.ones(1, 1, 1)
    return Dataset(train=split(labels), test=split(test), classes=max(labels) + 1, mean=one, std=one)


def many(seed: int, classes: int = 11, count: int = 250) -> Dataset:
    """Classes of very different sizes."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(classes))
    labels = [*range(classes), *rng.choice(classes, count, p=shares).tolist()]
    return labelled(*rng.permutation(labels).tolist(), test=tuple(rng.integers(0, classes, 50).tolist()))


def naive(labels: list[int], subset: str) -> list[int]:
    """Which images, by loops over plain lists."""
    if subset.endswith("held-out"):
        taken = naive(labels, subset.replace("held-out", "of-images"))
        return [i for i in range(len(labels)) if i not in taken]
    percent, _, of = subset.partition("%-of-")
    known = sorted(set(labels))
    chosen: list[int] = []
    if of == "images":
        for label in known:
            members = [i for i, own in enumerate(labels) if own == label]
            order = np.random.RandomState([20200110, label]).permutation(len(members))
            chosen += [members[place] for place in order[: max(1, round(int(percent) / 100 * len(members)))]]
    else:
        order = np.random.RandomState(20200110).permutation(len(known))
        taken = [known[place] for place in order[: max(1, round(int(percent) / 100 * len(known)))]]
        chosen = [i for i, own in enumerate(labels) if own in taken]
    return sorted(chosen)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("percent", [1, 10, 30, 50, 99])
@pytest.mark.parametrize("of", ["images", "classes"])
def test_is_what_a_plain_loop_chooses(seed: int, percent: int, of: str) -> None:
    whole = many(seed)
    labels = whole.train.labels.tolist()
    part = subsets.of(whole, f"{percent}%-of-{of}")
    index, _ = subsets.choose(whole, f"{percent}%-of-{of}")
    wanted = naive(labels, f"{percent}%-of-{of}")
    assert index.tolist() == wanted
    assert isinstance(part.train, Resident)
    assert isinstance(part.test, Resident)
    assert part.train.images.flatten().tolist() == wanted
    kept = sorted({labels[i] for i in wanted})
    assert [kept[label] for label in part.train.labels.tolist()] == [labels[i] for i in wanted]
    assert part.classes == len(kept)
    tested = [(i, label) for i, label in enumerate(whole.test.labels.tolist()) if label in kept]
    assert part.test.images.flatten().tolist() == [i for i, _ in tested]
    assert [kept[label] for label in part.test.labels.tolist()] == [label for _, label in tested]


def test_every_class_keeps_its_share() -> None:
    sizes = np.bincount(data.load("digits").train.labels)
    for percent in (1, 10, 25, 50):
        taken = np.bincount(data.load(f"digits:{percent}%-of-images").train.labels, minlength=10)
        assert (taken == np.maximum(1, np.round(sizes * percent / 100))).all()


def test_the_test_set_of_a_tenth_of_the_images_is_untouched() -> None:
    whole, part = data.load("digits", ""), data.load("digits:10%-of-images", "")
    assert part.test is whole.test
    assert part.mean is whole.mean


def test_at_least_one_image_and_one_class_are_left() -> None:
    assert len(subsets.of(labelled(0, 1, 1, 2), "1%-of-images").train) == 3
    assert subsets.of(labelled(0, 1, 1, 2), "1%-of-classes").classes == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("percent", [10, 25])
def test_held_out_images_validate_and_the_others_train(seed: int, percent: int) -> None:
    whole = many(seed, count=1000)
    whole = labelled(*(label for label in whole.train.labels.tolist() for _ in range(2)), test=(0, 1, 2))
    labels, part = whole.train.labels.tolist(), subsets.of(whole, f"{percent}%-held-out")
    assert isinstance(part.train, Resident)
    assert isinstance(part.validation, Resident)
    rest, held = naive(labels, f"{percent}%-held-out"), naive(labels, f"{percent}%-of-images")
    assert sorted(rest + held) == list(range(len(labels)))
    assert part.train.images.flatten().tolist() == rest
    assert part.train.labels.tolist() == [labels[i] for i in rest]
    assert part.validation.images.flatten().tolist() == held
    assert part.validation.labels.tolist() == [labels[i] for i in held]
    assert (part.test, part.classes, part.mean) == (whole.test, whole.classes, whole.mean)
    assert part.to(torch.device("cpu")).validation is not None
    assert whole.to(torch.device("cpu")).validation is None


def test_a_part_of_what_is_not_held_out() -> None:
    """A tenth of the others, and all images of half of the classes, of the validation set too."""
    held = data.load("digits:25%-held-out", "")
    tenth, half = (data.load(f"digits:25%-held-out:{part}", "") for part in ("10%-of-images", "50%-of-classes"))
    for split in (held, tenth, half):
        assert isinstance(split.validation, Resident)
        assert isinstance(split.train, Resident)
        both = [{image.numpy().tobytes() for image in one.images} for one in (split.validation, split.train)]
        assert not both[0] & both[1]
    assert (len(held.train), len(tenth.train), tenth.validation) == (901, 90, held.validation)
    assert held.validation is not None
    assert half.validation is not None
    assert half.classes == 5
    kept = np.random.RandomState(20200110).permutation(10)[:5]
    wanted = [sorted(kept).index(label) for label in held.validation.labels.tolist() if label in kept]
    assert half.validation.labels.tolist() == wanted


def test_a_class_that_would_have_nothing_left_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no image of class 1 for training; hold out fewer images"):
        subsets.of(labelled(0, 0, 0, 1), "25%-held-out")


def test_images_are_held_out_once() -> None:
    with pytest.raises(ValueError, match="holds images out twice"):
        catalogue.data_parts("digits:25%-held-out:10%-of-images:10%-held-out")


def facts(name: str) -> tuple[int, int, list[int]]:
    whole, _, subset = name.partition(":")
    index, labels = subsets.choose(data.load(whole), subset)
    weights = torch.arange(1, len(index) + 1)
    return int((index * weights).sum()), int((labels * weights).sum()), index[:8].tolist()


GOLDEN = {
    "digits:10%-of-images": (5_901_222, 33_583, [0, 17, 47, 48, 54, 71, 74, 76]),
    "digits:25%-held-out": (323_965_161, 1_850_101, [1, 2, 3, 4, 5, 6, 7, 8]),
    "digits:30%-of-classes": (52_833_647, 66_203, [3, 4, 8, 11, 12, 18, 21, 23]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_is_the_same_for_everybody(name: str) -> None:
    """A change here changes what every stored result of a subset was trained on."""
    assert facts(name) == GOLDEN[name]


def test_global_random_state_is_left_alone() -> None:
    np.random.seed(3)
    whole = many(0)
    before: Any = np.random.get_state()
    index, _ = subsets.choose(whole, "10%-of-images")
    after: Any = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    np.random.seed(4)
    assert torch.equal(index, subsets.choose(whole, "10%-of-images")[0])


@pytest.mark.parametrize(
    "subset",
    ["", "10%", "0%-held-out", "10%-held", "0%-of-images", "100%-of-images", "05%-of-images", "10%-of-cats", "ten"],
)
def test_another_subset_is_refused(subset: str) -> None:
    with pytest.raises(ValueError, match="is not of the form"):
        subsets.choose(labelled(0, 1), subset)


def test_images_of_several_classes_are_refused() -> None:
    one = torch.ones(1, 1, 1)
    several = Resident(images=torch.zeros(3, 1, 1, 1), labels=torch.ones(3, 20, dtype=torch.int8))
    whole = Dataset(train=several, test=several, classes=20, mean=one, std=one)
    with pytest.raises(ValueError, match="one class for each image"):
        subsets.of(whole, "10%-of-images")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("digits", ("digits", "", "")),
        ("imagenet:10%-of-images", ("imagenet", "", "10%-of-images")),
        ("folder/pets", ("folder", "pets", "")),
        ("folder/pets:1%-of-classes", ("folder", "pets", "1%-of-classes")),
        ("folder/a/b:99%-of-classes", ("folder", "a/b", "99%-of-classes")),
        ("my.module:Source", ("my.module:Source", "", "")),
        ("my.module:Source/x", ("my.module:Source", "x", "")),
        ("my.module:Source:10%-of-images", ("my.module:Source", "", "10%-of-images")),
        ("my.module:Source/x:10%-of-images", ("my.module:Source", "x", "10%-of-images")),
    ],
)
def test_a_name_has_three_parts(name: str, parts: tuple[str, str, str]) -> None:
    assert catalogue.data_parts(name) == parts


@pytest.mark.parametrize("name", ["digits:0%-of-images", "digits:110%-of-images", "digits:10%", "digits:10%-of-dogs"])
def test_a_wrong_subset_in_a_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not of the form"):
        catalogue.data_parts(name)
    with pytest.raises(ValueError, match="is not of the form"):
        data.load(name)


@pytest.mark.parametrize(
    "name", ["digits", "digits:10%-of-images", "digits:20%-of-classes", "digits:25%-held-out:10%-of-images"]
)
def test_images_are_counted_without_being_loaded(name: str) -> None:
    assert data.count(name) == len(data.load(name).train)
