"""Scales as files: against the package's own scales, lengths worked out by hand, and what is wrong, with its line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from raysslprune.paper import scaletext
from raysslprune.paper.scalefile import ScaleError, scale
from raysslprune.paper.scales import SETTINGS, Scale, Setting, images_of
from raysslprune.spec import SVM, Recipe
from raysslprune.sweep_loader import known, load


def write(folder: Path, text: str, name: str = "pets.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def read(folder: Path, text: str) -> Setting:
    return SETTINGS[scale(write(folder, text))]


# ------------------------------------------------------------------------------------- the package's scales


@pytest.mark.parametrize("name", SETTINGS)
def test_a_printed_scale_is_the_scale_again_in_each_figure(name: str, tmp_path: Path) -> None:
    """Its steps by their ids, its rows and its claims; so the file says all that the scale has."""
    text = scaletext.text(name)
    assert "base" not in tomllib.loads(text)
    own = scale(write(tmp_path, text, "own.toml"))
    assert own == "own"
    assert SETTINGS[own] == SETTINGS[name]
    for figure in known():
        wanted, found = load(figure, name, 2), load(figure, own, 2)
        assert [point.step.id for point in found.points] == [point.step.id for point in wanted.points], figure
        assert (found.points, found.rows, found.claims) == (wanted.points, wanted.rows, wanted.claims), figure


@pytest.mark.parametrize("name", SETTINGS)
def test_a_base_alone_is_the_scale_and_a_file_prints_itself(name: str, tmp_path: Path) -> None:
    own = scale(write(tmp_path, f'base = "{name}"\n'))
    assert SETTINGS[own] == SETTINGS[name]
    again = scaletext.text(own).replace("the scale pets", f"the scale {name}").replace('base = "laptop"', "")
    assert tomllib.loads(again) == tomllib.loads(scaletext.text(name))


def test_each_key_of_a_printed_scale_has_a_comment() -> None:
    lines = scaletext.text("laptop").splitlines()
    top = lines[: lines.index('[recipes."*"]')]
    assert all(line.startswith("#") or "  # " in line for line in top if line)
    assert {line.partition(" = ")[0] for line in top if line and line[0] != "#"} == {*scaletext.ABOUT}


RICH = """
base = "cifar10"
data = "folder/pets:10%-of-images"
size = 64
images = 133
arch = "resnet34-cifar"
rewind = "3 epochs"
[recipes."*"]
samples = "7 epochs"
schedule = "cosine"
decay_at = []
[recipes.labels]
rewind = "2 epochs"
warmup = "5 updates"
[recipes."labels:30%-of-images"]
batch = 32
[recipes."s4l:30%-of-images"]
batch = 8
[nets.mine]
arch = "vgg13"
data = "parquet/x"
images = 77
natural_zeros = false
[nets.mine.recipes.labels]
samples = "9 epochs"
[nets]
vgg19 = false
[linear.other]
data = "folder/y"
images = 55
samples = "2 epochs"
batch = 10
lr = 0.1
[finetune]
samples = "11 epochs"
schedule = "constant"
decay_at = []
[unpruned.more]
lr = 0.3
"""


def test_a_file_of_many_changes_prints_itself(tmp_path: Path) -> None:
    """With rewinds of single tasks, other data sets, and networks that are added and left out."""
    first = scale(write(tmp_path, RICH))
    again = scale(write(tmp_path, scaletext.text(first), "again.toml"))
    assert SETTINGS[again] == SETTINGS[first]
    s = SETTINGS[first]
    assert s.counts == {"folder/pets:64px:10%-of-images": 133, "parquet/x": 77, "folder/y": 55}
    assert (s.rewind["labels"], s.rewind["rotnet"], s.recipes["labels"].warmup) == (2 * 133, 3 * 133, 5 * 512)
    assert s.others["mine"].recipes["labels"].samples == 9 * 77
    assert set(s.others["mine"].rewind.values()) == {2 * 77, 3 * 77}


# ------------------------------------------------------------------------------------- another data set

PETS = 'base = "laptop"\ndata = "parquet/pets"\nimages = 600\n'


def test_inherited_lengths_stay_the_same_in_epochs(tmp_path: Path) -> None:
    """Of 600 images in the place of the digits' 1,200, and so of 60 in 10% of them in the place of 120."""
    s, laptop = read(tmp_path, PETS), SETTINGS["laptop"]
    assert s.net.images_of() == 600
    for task in ("labels", "rotnet", "exemplar", "npid"):
        assert s.recipes[task].samples == (24 if task == "npid" else 12) * 600
    assert s.recipes["labels:10%-of-images"].samples == 60 * 60
    assert s.recipes["s4l:20%-of-classes"].samples == 30 * 120
    assert set(s.rewind.values()) == {600}
    assert s.linear[0].recipe.samples == 60 * 600
    assert s.finetune.recipe.samples == 60 * 60
    for task, recipe in s.recipes.items():
        assert (recipe.batch, recipe.lr, recipe.options) == (
            laptop.recipes[task].batch,
            laptop.recipes[task].lr,
            laptop.recipes[task].options,
        )


def test_data_replaces_that_of_the_base_everywhere_and_keeps_subsets(tmp_path: Path) -> None:
    s = read(tmp_path, PETS)
    assert {net.data for net in s.nets.values()} == {"parquet/pets"}
    assert {probe.data for probe in s.linear} == {"parquet/pets"}
    assert s.finetune.data == "parquet/pets:10%-of-images"
    assert {data for data, _ in s.unpruned.values()} == {"parquet/pets"}
    for figure in known():
        sweep = load(figure, scale(str(tmp_path / "pets.toml")), 1)
        assert {point.step.data.partition(":")[0] for point in sweep.points} <= {"parquet/pets"}
        assert sweep.points or sweep.rows


def test_a_part_of_another_source_takes_the_place_of_a_part(tmp_path: Path) -> None:
    """Of cifar10-small, whose finetuning has a hundredth of all images, of which it trains on a tenth."""
    text = 'base = "cifar10-small"\ndata = "parquet/cifar10:10%-of-images"\nimages = 5000\n'
    s = read(tmp_path, text)
    assert {net.data for net in s.nets.values()} == {"parquet/cifar10:10%-of-images"}
    assert s.finetune.data == "parquet/cifar10:1%-of-images"
    small = SETTINGS["cifar10-small"]
    assert s.recipes == small.recipes
    assert s.finetune.recipe == small.finetune.recipe
    assert s.net.held_out.data == "parquet/cifar10:10%-of-images:25%-held-out"
    assert s.net.images_of("10%-of-images") == 500


def test_data_sets_to_transfer_to_stay(tmp_path: Path) -> None:
    s = read(tmp_path, 'base = "cifar10"\ndata = "parquet/pets"\nimages = 600\n')
    assert [probe.data for probe in s.linear] == ["parquet/pets", "cifar100", "parquet/pets"]
    assert s.finetune == SETTINGS["cifar10"].finetune
    paper = read(tmp_path, 'base = "paper"\ndata = "cifar100"\n')
    assert [net.data for net in paper.nets.values()] == ["cifar100", "cifar10", "cifar10", "cifar100"]
    assert paper.rewind["labels"] == 3 * 50_000
    assert paper.others["vgg19"] == SETTINGS["paper"].others["vgg19"]


def test_titles_follow_the_data_and_the_network(tmp_path: Path) -> None:
    s = read(tmp_path, PETS + 'arch = "vgg11"\n')
    assert s.title == "parquet/pets, VGG-11"
    assert s.others["resnet"].title == "parquet/pets, small ResNet"
    assert read(tmp_path, PETS + 'title = "pets"\n').title == "pets"
    assert read(tmp_path, 'base = "laptop"\nkeep = 0.5\n').title == SETTINGS["laptop"].title
    cifar = read(tmp_path, 'base = "cifar10"\ndata = "parquet/pets"\nimages = 600\n')
    assert [probe.title for probe in cifar.linear] == [
        "parquet/pets, linear classifier",
        "CIFAR-100, linear classifier",
        "parquet/pets, linear SVMs",
    ]
    assert list(cifar.unpruned) == ["parquet/pets"]


def test_networks_of_figures_6_and_10_are_the_files(tmp_path: Path) -> None:
    s = read(tmp_path, 'base = "laptop"\narch = "vgg11"\n[nets.resnet]\narch = "resnet18-cifar"\n')
    assert s.unpruned_archs == {"fig6": ("vgg11",), "fig10": ("vgg11", "resnet18-cifar", "alexnet8")}
    s = read(tmp_path, 'base = "laptop"\narch = "vgg11"\n[unpruned]\nfig6 = ["conv4"]\n')
    assert s.unpruned_archs["fig6"] == ("conv4",)


def test_what_images_are_compared_with_the_data(tmp_path: Path) -> None:
    """Those that the package does not count itself."""
    assert read(tmp_path, PETS).counts == {"parquet/pets": 600}
    assert read(tmp_path, 'base = "laptop"\nimages = 1200\n').counts == {}
    real = read(tmp_path, 'base = "paper"\nimages = 1281167\n')
    assert real.counts == {"imagenet": 1_281_167}
    assert real.recipes["labels"].samples == 90 * 1_281_167
    assert images_of("imagenet:10%-of-images", real.images) == 128_117


def test_a_folder_has_the_size_that_is_asked_for(tmp_path: Path) -> None:
    s = read(tmp_path, 'base = "laptop"\ndata = "folder/pets:10%-of-images"\nsize = 64\nimages = 60\n')
    assert s.data == "folder/pets:64px:10%-of-images"
    assert s.finetune.data == "folder/pets:64px:10%-of-images:10%-of-images"


# ------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("length", "samples"),
    [
        ('"24 epochs"', 28_800),
        ('"1 epoch"', 1_200),
        ('"2.5 epochs"', 3_000),
        ('"7/3 epochs"', 2_800),
        ('"500 updates"', 32_000),
        ('"30_000 samples"', 30_000),
        ('"30000 samples"', 30_000),
        ("30_000", 30_000),
    ],
)
def test_lengths_may_be_in_epochs_updates_and_samples(length: str, samples: int, tmp_path: Path) -> None:
    text = f'base = "laptop"\n[recipes.labels]\nsamples = {length}\nrewind = {length}\n'
    s = read(tmp_path, text)
    assert s.recipes["labels"].samples == s.rewind["labels"] == samples
    assert s.recipes["rotnet"].samples == 14_400
    steps = f'schedule = "steps"\ndecay_at = [{length}, 40000]\n'
    assert read(tmp_path, text + steps).recipes["labels"].decay_at == (samples, 40_000)


def test_an_epoch_of_few_labels_is_of_their_images(tmp_path: Path) -> None:
    s = read(tmp_path, 'base = "laptop"\n[recipes."*"]\nsamples = "24 epochs"\n')
    samples = {task: recipe.samples for task, recipe in s.recipes.items()}
    assert samples["labels"] == samples["npid"] == 24 * 1_200
    assert samples["labels:10%-of-images"] == samples["s4l:10%-of-images"] == 24 * 120
    assert samples["labels:20%-of-classes"] == 24 * 240


def test_what_is_for_all_tasks_comes_before_what_is_for_one(tmp_path: Path) -> None:
    text = 'base = "laptop"\n[recipes.labels]\nlr = 0.1\n[recipes."*"]\nlr = 0.2\nflip = true\n'
    s = read(tmp_path, text + '[nets.resnet.recipes.rotnet]\nlr = 0.3\n[nets.resnet.recipes."*"]\nbatch = 32\n')
    assert {task: recipe.lr for task, recipe in s.recipes.items()} == {
        task: 0.1 if task == "labels" else 0.2 for task in s.recipes
    }
    assert all(recipe.flip for recipe in s.recipes.values())
    resnet = s.others["resnet"]
    assert (resnet.recipes["labels"].lr, resnet.recipes["rotnet"].lr, resnet.recipes["npid"].lr) == (0.1, 0.3, 0.2)
    assert {recipe.batch for recipe in resnet.recipes.values()} == {32}
    assert s.recipes["labels"].batch == 64
    assert s.others["alexnet"].recipes == s.recipes


def test_options_are_put_on_top_of_others(tmp_path: Path) -> None:
    s = read(tmp_path, 'base = "laptop"\n[recipes.exemplar.options]\nmargin = 0.2\n')
    assert dict(s.recipes["exemplar"].options) == {"dimension": 64, "margin": 0.2, "negatives": "random"}


def test_figure_5_has_the_few_labels_for_which_there_are_recipes(tmp_path: Path) -> None:
    text = (
        'base = "laptop"\n[recipes]\n"s4l:20%-of-classes" = false\n'
        '[recipes."labels:30%-of-images"]\nbatch = 32\n[recipes."s4l:30%-of-images"]\nsamples = "20 epochs"\n'
    )
    s = read(tmp_path, text)
    assert s.labelled == ("10%-of-images", "30%-of-images")
    new = s.recipes["s4l:30%-of-images"]
    assert (new.samples, new.batch, new.options) == (20 * 360, 64, (("labelled", "30%-of-images"),))
    panels = {point.panel for point in load("fig5", scale(str(tmp_path / "pets.toml")), 1).points}
    assert panels == {"labels of 10% of the images", "labels of 30% of the images"}


def test_tests_of_features_can_be_changed_together_alone_added_and_left_out(tmp_path: Path) -> None:
    s = read(tmp_path, 'base = "cifar10"\n[linear]\nlr = 0.2\ncosts = [0.5]\n"CIFAR-10, linear classifier" = false\n')
    assert [probe.title for probe in s.linear] == ["CIFAR-100, linear classifier", "CIFAR-10, linear SVMs"]
    sgd, svm = (probe.recipe for probe in s.linear)
    assert isinstance(sgd, Recipe)
    assert isinstance(svm, SVM)
    assert (sgd.lr, svm.costs) == (0.2, (0.5,))
    text = '[linear.mine]\ndata = ":10%-of-images"\nsamples = "2 epochs"\nbatch = 10\nlr = 1\n[finetune]\nlr = 0.5\n'
    s = read(tmp_path, f'base = "laptop"\n{text}')
    mine = s.linear[-1]
    assert (mine.title, mine.data, mine.metric) == ("mine", "digits:10%-of-images", "top1")
    assert mine.recipe == Recipe(samples=240, batch=10, lr=1)
    assert s.finetune.recipe.lr == 0.5
    assert s.linear[:-1] == SETTINGS["laptop"].linear


def test_a_network_can_be_added_and_left_out(tmp_path: Path) -> None:
    s = read(tmp_path, 'base = "laptop"\n[nets]\nalexnet = false\n[nets.mine]\narch = "vgg11"\nrewind = "2 epochs"\n')
    assert list(s.others) == ["resnet", "mine"]
    mine = s.others["mine"]
    assert (mine.title, mine.data, set(mine.rewind.values())) == ("digits, VGG-11", "digits", {2_400})
    assert mine.recipes == s.recipes
    panels = {point.panel for point in load("fig8", scale(str(tmp_path / "pets.toml")), 1).points}
    assert panels == {"digits, four convolutions", "digits, small ResNet", "digits, VGG-11"}


# ------------------------------------------------------------------------------------- what is wrong

WRONG = {
    "levls = [1]": (2, "there is no key levls; did you mean levels? Known: base, title, data,"),
    "levels = [3, 1]": (2, "levels must be a list of whole numbers from 1, in ascending order, not [3, 1]"),
    "keep = 1.5": (2, "keep must be a fraction between 0 and 1, not 1.5"),
    "seeds = true": (2, "seeds must be a whole number from 1 to 1000, not True"),
    "gpus = 2": (2, "gpus must be a number from 0 to 1, not 2"),
    "nets = 3": (2, "nets must be a table, not 3"),
    'arch = "resnet9"': (2, "architecture 'resnet9' is not known; did you mean 'resnet8'?"),
    'data = "digitz"': (2, "data set 'digitz' is not known; did you mean 'digits'?"),
    'data = "digits:1-of-images"': (2, "data set 'digits:1-of-images' is not known"),
    'data = "parquet/pets"': (2, "data parquet/pets needs images, the number of its training images;"),
    "size = 64": (2, "size is for a folder of images whose name has none, such as folder/pets, not for digits"),
    "size = 4000": (2, "size must be a whole number of pixels from 8 to 1024, not 4000"),
    'size = "64px"': (2, "size must be a whole number of pixels from 8 to 1024, not '64px'"),
    "[nets.big]\nsize = 7": (3, "size must be a whole number of pixels from 8 to 1024, not 7"),
    'data = "folder/pets:4000px"': (2, "the size in data set folder/pets:4000px must be from 8px to 1024px"),
    'data = "folder/pets"\nimages = 60': (2, "labels pads images, and those of folder/pets stay on disk"),
    '\n[recipes.labels]\nlr = "x"': (4, "lr of Recipe must be a number, not 'x'"),
    "\n[recipes.labels]\nbatch = 64\nlr = -1": (5, "a recipe needs lr > 0, not -1"),
    "\n[recipes.labels]\nlrr = 1": (4, "there is no key lrr; did you mean lr? Known: samples,"),
    "\n[recipes.lables]\nlr = 1": (3, "task 'lables' is not known; did you mean 'labels'?"),
    "[recipes]\nlabels = 3": (3, "labels must be a table with a recipe, or false to leave it out, not 3"),
    "[recipes]\nlabels = false": (2, "a network needs a recipe of labels"),
    '[recipes."rotnet:10%-of-images"]\nlr = 1': (2, "rotnet:10%-of-images: only labels and s4l have recipes"),
    '[recipes."*"]\nsamples = "24 epoch s"': (3, "samples must be a number of samples, or text such as '24 epochs'"),
    '[recipes."*"]\nsamples = "0 epochs"': (3, "labels: a recipe needs samples > 0, not 0"),
    '[recipes.labels]\nschedule = "steps"': (3, "decay_at is required with schedule 'steps'"),
    "[recipes]\nexemplar.options = {margn = 1}": (3, "task exemplar has no option 'margn'; its options: dimension,"),
    '[recipes.exemplar.options]\nmargin = "x"': (3, "option margin of task exemplar must be of type float, not 'x'"),
    '[nets.big]\narch = "conv44"': (3, "architecture 'conv44' is not known; did you mean 'conv4'?"),
    '[nets.big]\narc = "conv4"': (3, "there is no key arc; did you mean arch? Known: title,"),
    '[nets.big]\narch = "conv4"': (2, "network big has the title of the main network, 'digits, four convolutions'"),
    "[nets]\nalexnet = 3": (3, "alexnet must be a table, or false to leave it out, not 3"),
    "[linear]\nfoo = 3": (3, "there is no key foo; known: samples,"),
    '[linear."linear SVMs"]\ncosts = []': (3, "an SVM needs costs, all above 0"),
    "[linear.new]\nlr = 1": (2, "the recipe new needs samples, batch"),
    "[finetune]\nlr = 0": (3, "a recipe needs lr > 0, not 0"),
    '[unpruned]\nfig6 = ["x"]': (3, "architecture 'x' is not known"),
    "levels = [1": (2, "Unclosed array"),
}


@pytest.mark.parametrize("text", WRONG, ids=ascii)
def test_what_is_wrong_is_one_sentence_with_its_line(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, f'base = "laptop"\n{text}\n')
    line, sentence = WRONG[text]
    with pytest.raises(ScaleError) as raised:
        scale(path)
    if text == "levels = [1":
        line = int(str(raised.value).partition("line ")[2].partition(":")[0])
        assert line in (2, 3)
    assert str(raised.value).startswith(f"{path}, line {line}: {sentence}")
    assert "\n" not in str(raised.value)
    assert raised.value.code == 2


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("laptop.toml", "", "would replace the results of the package's scale laptop; rename the file"),
        ("my pets.toml", "", "must have a name of letters, digits and _ . + = -"),
        (".toml", "", "there is no scale"),
        ("pets.txt", "", "there is no scale"),
        ("pets.toml", 'base = "laptp"', "line 1: base must be one of laptop,"),
        ("pets.toml", 'base = "laptp"', "not 'laptp'; did you mean laptop?"),
        (
            "pets.toml",
            'data = "digits"\narch = "conv4"',
            'line 1: without base = "laptop" or another scale, a file needs',
        ),
    ],
)
def test_a_file_that_can_not_be_a_scale(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ScaleError) as raised:
        scale(write(tmp_path, text, name))
    assert sentence in str(raised.value)


def test_a_missing_and_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match=r"there is no scale file .*no\.toml$"):
        scale(str(tmp_path / "no.toml"))
    (tmp_path / "odd.toml").write_bytes(b"\xff")
    with pytest.raises(ScaleError, match=r"odd\.toml can't be read: it is not UTF-8"):
        scale(str(tmp_path / "odd.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ScaleError, match=r"folder\.toml can't be read: Is a directory"):
        scale(str(tmp_path / "folder.toml"))


# ------------------------------------------------------------------------------------- single values


def test_a_value_is_replaced_under_a_name_of_its_own() -> None:
    changed = scale("laptop", ["labels.lr=0.10"])
    assert changed == "laptop-set-labels.lr=0.1"
    assert isinstance(changed, Scale)
    assert changed.given == ("laptop", "--set", "labels.lr=0.1")
    s, laptop = SETTINGS[changed], SETTINGS["laptop"]
    assert s.recipes["labels"].lr == 0.1
    assert {task: recipe for task, recipe in s.recipes.items() if task != "labels"} == {
        task: recipe for task, recipe in laptop.recipes.items() if task != "labels"
    }
    assert scale(changed.given[0], changed.given[2:3]) == changed


def test_values_are_as_in_a_file_and_their_order_does_not_matter(tmp_path: Path) -> None:
    one = scale("laptop", ["labels:10%-of-images.samples=30 epochs", '*.optimizer="adamw"', "keep=0.5"])
    two = scale("laptop", {"keep": 0.5, "*.optimizer": "adamw", "labels:10%-of-images.samples": "30 epochs"})
    assert one == two
    text = '[recipes."*"]\noptimizer = "adamw"\n[recipes."labels:10%-of-images"]\nsamples = "30 epochs"\n'
    assert SETTINGS[one] == SETTINGS[two] == read(tmp_path, f'base = "laptop"\nkeep = 0.5\n{text}')


def test_the_last_of_two_values_counts_and_no_value_changes_nothing() -> None:
    assert scale("laptop", ["keep=0.5", "keep=0.6"]) == scale("laptop", ["keep=0.6"])
    assert scale("laptop") == "laptop"
    assert not isinstance(scale("laptop"), Scale)


def test_a_name_that_loses_characters_or_is_long_has_a_hash() -> None:
    one, two = (scale("laptop", [f'title="{title}"']) for title in ("a b", "a/b"))
    assert one != two
    assert one.startswith("laptop-set-title=a-b-")
    long = scale("laptop", [f"title={'x' * 150}"])
    assert len(long) < 90


def test_a_file_with_a_value_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, 'base = "laptop"\nkeep = 0.5\n')
    changed = scale(path, ["labels.lr=0.2"])
    assert changed == "pets-set-labels.lr=0.2"
    assert (SETTINGS[changed].keep, SETTINGS[changed].recipes["labels"].lr) == (0.5, 0.2)
    assert isinstance(changed, Scale)
    assert changed.given == (path, "--set", "labels.lr=0.2")
    assert scale(scale(path)) == "pets"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("labels.lr=-1", "--set labels.lr=-1: a recipe needs lr > 0, not -1"),
        ("labels.lrr=1", "--set labels.lrr=1: there is no key lrr; did you mean lr?"),
        ("lables.lr=1", "--set lables.lr=1: task 'lables' is not known; did you mean 'labels'?"),
        ("keep=x", "--set keep=x: keep must be a fraction between 0 and 1, not 'x'"),
        ("lr=3", "--set lr=3: task 'lr' is not known; did you mean labels.lr or \"*.lr\"?"),
        ("base=smoke", "--set base=smoke: a key is one of a scale file other than base, such as labels.lr"),
        ("lr", "--set lr: write KEY=VALUE with a key of a scale file, such as labels.lr=0.1"),
    ],
)
def test_a_wrong_value_is_named(change: str, sentence: str) -> None:
    with pytest.raises(ScaleError) as raised:
        scale("laptop", [change])
    assert str(raised.value).startswith(sentence)


def test_a_wrong_name_is_told_the_good_ones() -> None:
    with pytest.raises(ScaleError, match=r"there is no scale 'laptp', only laptop, .*; did you mean laptop\?"):
        scale("laptp")
    with pytest.raises(KeyError, match="unknown scale 'pets'; known: laptop"):
        SETTINGS["pets"]
