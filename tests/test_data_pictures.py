"""Pictures from idx files, folders, tables and `datasets`, tiny and written here."""

import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from command_lines import cli
from data_files import picture, write, write_idx

from zoo.config.presets import get_preset
from zoo.config.values import override
from zoo.data import DataSpec, load
from zoo.evaluation.inputs import data_for
from zoo.evaluation.score import score
from zoo.pretrained import single_file
from zoo.pretrained.load import load_pretrained
from zoo.train.start import load_data
from zoo.utils.notes import Note

RNG = np.random.default_rng


def everything(split) -> dict[str, np.ndarray]:
    return split.take(np.arange(split.samples))


def labels_in(split) -> list[int]:
    return everything(split)["label"].tolist()


def parquet(path: Path, columns: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def write_images(folder: Path, ending: str, mark: str = "-", prefixes=("train", "t10k")) -> list:
    rng, made = RNG(1), []
    for prefix, count in zip(prefixes, (12, 5), strict=True):
        pixels = rng.integers(0, 256, (count, 4, 3), np.uint8)
        labels = np.arange(count) % 5
        write_idx(folder, prefix, pixels, labels, ending)
        made.append((pixels, labels))
    if mark != "-":
        for file in list(folder.iterdir()):
            file.rename(file.with_name(file.name.replace("-idx", f"{mark}idx")))
    return made


@pytest.mark.parametrize(("ending", "mark"), [("", "-"), (".gz", "-"), ("", ".")])
def test_a_folder_of_idx_files(tmp_path, ending, mark):
    made = write_images(tmp_path / "mnist", ending, mark)
    data = load(DataSpec(source=str(tmp_path / "mnist")))
    scaled = made[0][0] / 255
    mean, std = scaled.mean(), scaled.std()
    for split, (pixels, labels) in zip((data.train, data.validation), made, strict=True):
        batch = everything(split)
        np.testing.assert_allclose(
            batch["image"][..., 0], (pixels / 255 - mean) / std, atol=1e-6, rtol=0
        )
        assert batch["label"].tolist() == labels.tolist()
    assert (data.classes, data.record["image"]) == (5, [4, 3, 1])
    given = load(DataSpec(source=str(tmp_path / "mnist"), mean=(0.5,), std=(0.25,), image_size=6))
    assert everything(given.train)["image"].shape == (12, 6, 6, 1)
    assert (given.record["mean"], given.record["std"]) == ([0.5], [0.25])
    assert given.record["sha256"] != data.record["sha256"]


def test_idx_splits_of_other_names(tmp_path):
    made = write_images(tmp_path / "m", ".gz", prefixes=("emnist-digits-train", "emnist-digits-x"))
    spec = DataSpec(source=str(tmp_path / "m"), train="emnist-digits-train",
                    validation="emnist-digits-x")  # fmt: skip
    assert labels_in(load(spec).validation) == made[1][1].tolist()


def flat_picture(value, form="PNG", size=(5, 4)) -> bytes:
    return picture((value, size), form, "L" if isinstance(value, int) else "RGB")


@pytest.mark.filterwarnings("ignore:.*cat/notes.md")
@pytest.mark.parametrize("layout", ["splits", "classes"])
def test_folders_of_pictures_for_each_class(tmp_path, layout):
    folder = tmp_path / "pets"
    top = folder / "train" if layout == "splits" else folder
    for i in range(4):
        write(top / "cat" / f"{i}.png", flat_picture(10 * i))
        write(top / "ant" / f"{i}.jpg", flat_picture(100 + 10 * i, "JPEG"))
    write(top / ".hidden" / "x.png", flat_picture(0))
    write(top / "cat" / "notes.md", "not a picture")
    write(top / "README.txt", "nor this")
    if layout == "splits":
        write(folder / "val" / "cat" / "9.png", flat_picture(90))
    spec = DataSpec(source=str(folder), held_out=0.25, mean=(0.0,), std=(1 / 255,))
    data = load(spec)
    assert data.record["class_names"] == ["ant", "cat"]
    assert (data.classes, data.record["image"]) == (2, [4, 5, 1])
    batch, held = everything(data.train), everything(data.validation)
    values = batch["image"][:, 0, 0, 0].round().astype(int).tolist()
    assert batch["label"].tolist() == [int(value < 100) for value in values]
    more = held["image"][:, 0, 0, 0].round().astype(int).tolist()
    if layout == "splits":
        assert values == [100, 110, 120, 130, 0, 10, 20, 30]
        assert (more, held["label"].tolist()) == ([90], [1])
    else:
        assert sorted(values + more) == [0, 10, 20, 30, 100, 110, 120, 130]
        assert len(more) == 2


def test_pictures_in_colour_of_many_sizes_are_resized(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "p" / split / "a" / "1.png", flat_picture((200, 100, 0), size=(9, 7)))
        write(tmp_path / "p" / split / "b" / "2.bmp", flat_picture((0, 50, 250), "BMP", (3, 8)))
        write(tmp_path / "p" / split / "b" / "3.png", flat_picture(60, size=(6, 6)))
    data = load(DataSpec(source=str(tmp_path / "p"), image_size=4, mean=(0.0,) * 3,
                         std=(1 / 255,) * 3))  # fmt: skip
    image = everything(data.train)["image"]
    assert image.shape == (3, 4, 4, 3)
    for made, colour in zip(image, [(200, 100, 0), (0, 50, 250), (60, 60, 60)], strict=True):
        np.testing.assert_allclose(made, np.broadcast_to(np.float32(colour), (4, 4, 3)), atol=1e-4)


def test_a_parquet_of_pictures_as_the_hub_has_them(tmp_path):
    columns = {
        "image": [{"bytes": flat_picture(i), "path": f"{i}.png"} for i in range(8)],
        "label": [i % 2 for i in range(8)],
    }
    parquet(tmp_path / "d" / "train-00000-of-00001.parquet", columns)
    parquet(tmp_path / "d" / "test.parquet", {"image": [flat_picture(77)], "label": [1]})
    data = load(DataSpec(source=str(tmp_path / "d"), mean=(0.0,), std=(1 / 255,)))
    assert everything(data.train)["image"][:, 3, 4, 0].round().tolist() == list(range(8))
    assert everything(data.validation)["image"].shape == (1, 4, 5, 1)


def test_a_table_that_names_picture_files_beside_it(tmp_path):
    write(tmp_path / "d" / "train.csv", "image,label\npics/0.png,no\npics/1.png,yes\n")
    write(tmp_path / "d" / "test.csv", "image,label\npics/1.png,yes\n")
    for i in range(2):
        write(tmp_path / "d" / "pics" / f"{i}.png", flat_picture(i))
    data = load(DataSpec(source=str(tmp_path / "d"), mean=(0.0,), std=(1 / 255,)))
    assert everything(data.train)["image"][:, 0, 0, 0].round().tolist() == [0, 1]
    assert data.record["class_names"] == ["no", "yes"]


def saved() -> tuple[datasets.Dataset, datasets.DatasetDict]:
    """Six pictures of value 0 to 5 in three named classes; and the same in two splits."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "w", "v"])}
    )
    rows = {"image": [np.full((4, 5), i, np.uint8) for i in range(6)], "label": [0, 1, 2, 2, 1, 0]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    parts = {"train": whole.select(range(4)), "validation": whole.select(range(4, 6))}
    return whole, datasets.DatasetDict(parts)


PLAIN = {"mean": (0.0,), "std": (1 / 255,)}


def assert_is_saved(data) -> None:
    assert everything(data.train)["image"][:, 0, 0, 0].round().tolist() == [0, 1, 2, 3]
    assert labels_in(data.train) == [0, 1, 2, 2]
    assert labels_in(data.validation) == [1, 0]
    # The names that the data state, in their order.
    assert (data.classes, data.record["class_names"]) == (3, ["x", "w", "v"])


def test_folders_that_datasets_saved(tmp_path):
    whole, parts = saved()
    parts.save_to_disk(str(tmp_path / "two"))
    assert_is_saved(load(DataSpec(source=str(tmp_path / "two"), **PLAIN)))
    whole.with_format("numpy", columns=["label"]).save_to_disk(str(tmp_path / "one"))
    one = load(DataSpec(source=str(tmp_path / "one"), held_out=0.3, **PLAIN))
    assert (one.train.samples, one.validation.samples) == (4, 2)
    assert one.record["class_names"] == ["x", "w", "v"]


def test_a_data_set_on_the_hub(monkeypatch):
    there = {("owner/name", None): saved()[1], ("owner/many", "one"): saved()[1]}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset: there[name, subset])
    assert_is_saved(load(DataSpec(source="owner/name", **PLAIN)))
    swapped = DataSpec(source="owner/name", train="validation", validation="train", **PLAIN)
    assert labels_in(load(swapped).train) == [1, 0]
    with pytest.raises(ValueError, match=r"no split data.validation='test'; it has train, valid"):
        load(DataSpec(source="owner/name", validation="test", **PLAIN))
    assert_is_saved(load(DataSpec(source="owner/many", subset="one", **PLAIN)))
    with pytest.raises(ValueError, match=r"several subsets, name one in data\.subset"):
        load(DataSpec(source="owner/many", **PLAIN))


def test_a_subset_is_of_the_hub(tmp_path):
    with pytest.raises(ValueError, match=r"data\.subset='one' is for data sets on the Hub"):
        load(DataSpec(source=str(tmp_path), subset="one", **PLAIN))
    with pytest.raises(ValueError, match=r"data\.subset='one' is for data sets on the Hub"):
        load(DataSpec(source="digits", subset="one"))


def test_grey_pictures_are_what_a_model_for_colour_takes(tmp_path):
    """Whether or not one in colour is among them."""
    for i in range(4):
        write(tmp_path / "p" / f"{i % 2}" / f"{i}.png", flat_picture(50 * i))
    spec = DataSpec(source=str(tmp_path / "p"), held_out=0.25, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    image = everything(load(spec, channels=3, whole=True).train)["image"]
    assert image.shape == (4, 4, 5, 3)
    for made, value in zip(image, (0, 100, 50, 150), strict=True):
        np.testing.assert_allclose(made, np.full((4, 5, 3), value), atol=1e-4)
    one = {"mean": (0.0,), "std": (1 / 255,)}
    assert load(replace(spec, **one), channels=1).train.shape == (4, 5, 1)
    write(tmp_path / "p" / "0" / "9.png", flat_picture((200, 100, 0)))
    assert load(spec, channels=3, whole=True).train.shape == (4, 5, 3)
    with pytest.raises(
        ValueError, match="is a picture in colour, of 3 channels, but the model takes 1"
    ):
        load(replace(spec, **one), channels=1, whole=True)
    digits = load(replace(spec, source="digits"), channels=3)
    assert digits.train.shape == (8, 8, 3)
    assert (digits.train.pixels == load(DataSpec()).train.pixels).all()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"  # how a phone saves


def test_a_class_without_pictures_is_refused(tmp_path):
    """It would be missing without a word."""
    for name in ("a", "b"):
        write(tmp_path / "p" / name / "1.png", flat_picture(9))
    write(tmp_path / "p" / "c" / "1.heic", HEIC)
    write(tmp_path / "p" / "c" / "2.HEIC", HEIC)
    spec = DataSpec(source=str(tmp_path / "p"), **PLAIN)
    with pytest.raises(
        ValueError, match=r"p/c: the class has no picture: 1.heic, 2.HEIC. Pictures"
    ):
        load(spec)
    for path in list((tmp_path / "p" / "c").iterdir()):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"p/c: the class has no picture. Pictures are files in it"
    ):
        load(spec)
    write(tmp_path / "p" / "c" / "deep" / "1.png", flat_picture(9))
    with pytest.raises(
        ValueError, match=r"p/c: the class has no picture: deep. Pictures are files"
    ):
        load(spec)
    for name in ("a", "b", "c"):
        write(tmp_path / "q" / name / "1.heic", HEIC)
    with pytest.raises(ValueError, match=r"pictures end in .png, .*. It holds a, b, c"):
        load(DataSpec(source=str(tmp_path / "q"), **PLAIN))


def test_what_is_passed_over_is_named(tmp_path):
    folder = tmp_path / "p"
    for name in ("a", "b"):
        for i in range(2):
            write(folder / name / f"{i}.png", flat_picture(9))
    for name in (
        ".DS_Store",
        "a/.DS_Store",
        "a/Thumbs.db",
        "a/desktop.ini",
        "a/._0.png",
        "info.txt",
    ):
        write(folder / name, "what systems leave, and a text beside the classes")
    load(DataSpec(source=str(folder), **PLAIN))  # no note
    write(folder / "a" / "2.heic", HEIC)
    write(folder / "b" / "deep" / "3.png", flat_picture(9))
    write(folder / "4.jpg", flat_picture(9, "JPEG"))
    with pytest.warns(Note, match=r"p: 3 entries are passed over: 4.jpg, a/2.heic, b/deep. A pict"):
        data = load(DataSpec(source=str(folder), **PLAIN))
    assert data.train.samples + data.validation.samples == 4


def test_a_split_whose_pictures_have_no_classes_is_named(tmp_path):
    """As in competitions, where the test pictures have no labels."""
    for name in ("train/a/0", "train/a/1", "train/b/0", "train/b/1", "test/0", "test/1"):
        write(tmp_path / "p" / f"{name}.png", flat_picture(9))
    spec = DataSpec(source=str(tmp_path / "p"), held_out=0.25, **PLAIN)
    with pytest.warns(Note, match=r"p: test holds pictures, but in no folder for each class"):
        data = load(spec)
    assert (data.train.samples, data.validation.samples) == (3, 1)  # of train alone
    with (
        pytest.warns(Note, match="test holds pictures"),
        pytest.raises(ValueError, match=r"no split data.validation=.test.; it has train"),
    ):
        load(replace(spec, validation="test"))


def test_a_model_whose_images_nobody_says_how_to_scale_is_not_scored(tmp_path):
    """With the mean of the pictures that are scored, each set of them would be another model."""
    source = Path(__file__).parent / "golden" / "hugging_face" / "vit_classify_5"
    model = Path(shutil.copytree(source, tmp_path / "vit"))
    for i in range(10):
        name = f"LABEL_{i % 5}"
        write(tmp_path / "p" / name / f"{i}.png", flat_picture(20 * i, size=(8, 8)))
    spec = DataSpec(source=str(tmp_path / "p"))
    (model / "preprocessor_config.json").unlink(missing_ok=True)
    loaded = load_pretrained(model)
    with pytest.raises(
        ValueError, match=r"vit: nothing says how .*data.mean=0.5,0.5,0.5 and data.std"
    ):
        data_for(loaded, spec)
    given = replace(spec, mean=(0.5,) * 3, std=(0.25,) * 3)
    data = data_for(loaded, given)
    # Grey pictures, of which its three channels are made.
    image = everything(data.validation)["image"]
    assert image.shape == (10, 8, 8, 3)
    grey = (np.array(sorted(20 * i for i in range(10))) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(np.sort(image[:, 0, 0, 1]), grey, rtol=1e-6)
    assert score(loaded, data, ranks=1)["samples"] == 10
    # What is cut with them remembers them.
    cut = loaded.scaled_by(replace(given, image_size=8))
    single_file.save(tmp_path / "c.safetensors", cut.model, cut.params, cut.source, cut.record)
    again = load_pretrained(tmp_path / "c.safetensors")
    assert again.source.preprocessing == {
        "mean": [0.5] * 3, "std": [0.25] * 3, "resample": "bicubic", "size": 8,
    }  # fmt: skip
    assert cut.scaled_by(replace(given, mean=(0.1,) * 3)) == cut
    assert (data_for(again, spec).validation.pixels == data.validation.pixels).all()
    done = cli("evaluate", model, "--data", tmp_path / "p")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "set data.mean and data.std to what it was trained with" in done.stderr
    config = override(get_preset("digits_ann"), [f"distill.teacher={model}", "data.task=unlabelled",
                                                 f"data.source={tmp_path / 'p'}"])  # fmt: skip
    with pytest.raises(ValueError, match="vit: nothing says how the model's images are scaled"):
        load_data(config, loaded, tmp_path)
    assert load_data(
        replace(config, data=replace(config.data, mean=(0.5,) * 3, std=(0.25,) * 3)),
        loaded,
        tmp_path,
    ).train.shape == (8, 8, 3)


def test_a_preset_for_colour_trains_on_grey_pictures(tmp_path):
    for i in range(4):
        write(tmp_path / "p" / f"{i % 2}" / f"{i}.png", flat_picture(50 * i))
    config = override(get_preset("digits_ann"), ["model.name=vit_tiny_patch16_224",
                                                 f"data.source={tmp_path / 'p'}"])  # fmt: skip
    assert load_data(config, None, tmp_path).train.shape == (4, 5, 3)
