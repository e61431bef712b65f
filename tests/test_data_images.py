"""Images against plain float64 arithmetic, np.pad and scikit-learn's own files."""

import hashlib
import io
import itertools
from statistics import NormalDist

import numpy as np
import pytest
from data_files import idx, picture, write
from PIL import Image

from zoo.data import DataSpec, load, pictures
from zoo.data.augment import gaussian, shift_and_flip, words_needed
from zoo.data.idx import read_idx, read_idx_pair
from zoo.data.images import Images, measure
from zoo.data.order import sample_words

RNG = np.random.default_rng


def place(row: int) -> str:
    return f"here: row {row}"


def some_images(**changes) -> Images:
    rng = RNG(0)
    fields = {
        "pixels": rng.integers(0, 256, (40, 6, 5, 3), np.uint8),
        "labels": rng.integers(0, 4, 40, np.int32),
        "classes": 4,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.1, 0.2, 0.3),
    }
    return Images(**{**fields, **changes})


@pytest.mark.parametrize(("channels", "scale"), [(1, 16.0), (3, 255.0)])
def test_a_batch_is_normalised_in_float64_and_rounded_once(channels, scale):
    pixels = RNG(1).integers(0, 17, (9, 4, 3, channels), np.uint8)
    mean, std = tuple(0.1 * c + 0.3 for c in range(channels)), (0.7, 0.2, 0.4)[:channels]
    split = Images(pixels, np.arange(9, dtype=np.int32), 9, mean, std, scale)
    index = np.array([8, 0, 0, 3])
    batch = split.take(index)
    expected = (pixels[index] / scale - np.array(mean)) / np.array(std)
    assert expected.dtype == np.float64
    np.testing.assert_array_equal(batch["image"], expected.astype(np.float32))
    assert batch["image"].dtype == np.float32
    assert batch["label"].tolist() == [8, 0, 0, 3]
    assert (split.samples, split.shape) == (9, (4, 3, channels))
    # Without augmentation, training sees the same.
    np.testing.assert_array_equal(split.augmented(index, 1, 2)["image"], batch["image"])


@pytest.mark.parametrize("scale", [16.0, 255.0])
def test_measure_agrees_with_numpy(scale):
    pixels = RNG(2).integers(0, 256, (11, 7, 5, 3), np.uint8)
    mean, std = measure(pixels, scale)
    values = pixels.astype(np.float64) / scale
    np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std((0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pixels": np.zeros((40, 6, 5), np.uint8)}, r"pixels: uint8 \(40, 6, 5\)"),
        ({"pixels": np.zeros((40, 6, 5, 3))}, "pixels: float64"),
        ({"labels": np.zeros(39, np.int32)}, r"labels: int32 \(39,\)"),
        ({"labels": np.zeros(40)}, "labels: float64"),
        ({"labels": np.arange(40, dtype=np.int32)}, "label 4 of sample 4"),
        ({"labels": np.full(40, -1, np.int32)}, "label -1 of sample 0"),
        ({"pixels": np.zeros((0, 6, 5, 3), np.uint8), "labels": np.zeros(0, np.int32)}, "no data"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\) is not one finite number for each of 3"),
        ({"std": (1.0, 1.0)}, r"std=\(1.0, 1.0\) is not one finite number"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean=.*finite"),
        ({"std": (1.0, 0.0, 1.0)}, "std=.* must be positive"),
        ({"shift": 5}, r"shift=5 is not in \[0, 5\)"),
        ({"shift": -1}, "shift=-1"),
    ],
)
def test_images_refuse(change, match):
    with pytest.raises(ValueError, match=match):
        some_images(**change)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_moving_and_mirroring_equal_padding_cutting_and_turning(shift, flip):
    pixels = RNG(3).integers(0, 256, (1500, 5, 4, 2), np.uint8)
    before = pixels.copy()
    index = RNG(4).permutation(1500)
    words = sample_words(0, 0, index, 3)
    moved = shift_and_flip(pixels, index, words, shift, flip)
    seen = set()
    for i, result, row in zip(index, moved, words.tolist(), strict=True):
        # A choice of n comes from the upper half of a word w: w * n >> 32.
        down, right = (((w >> 32) * (2 * shift + 1) >> 32) - shift for w in row[:2])
        wide = np.pad(pixels[i], ((shift, shift), (shift, shift), (0, 0)), mode="edge")
        expected = wide[shift - down : shift - down + 5, shift - right : shift - right + 4]
        mirrored = flip and row[2] >= 2**63
        np.testing.assert_array_equal(result, expected[:, ::-1] if mirrored else expected)
        seen.add((down, right, mirrored))
    moves = range(-shift, shift + 1)
    assert seen == set(itertools.product(moves, moves, {False, flip}))
    assert moved.dtype == np.uint8
    np.testing.assert_array_equal(pixels, before)


def test_shift_and_flip_refuse_a_move_out_of_the_image():
    with pytest.raises(ValueError, match=r"shift=4 is not in \[0, 4\)"):
        shift_and_flip(np.zeros((2, 5, 4, 1)), np.arange(2), np.zeros((2, 3), np.uint64), 4, False)


def test_noise_is_standard_normal_and_independent_between_pixels_and_samples():
    values = 301
    words = sample_words(1, 2, np.arange(300), words_needed(values, 0, False, 0.1))
    noise = gaussian(words, values)
    assert noise.shape == (300, values)
    assert noise.dtype == np.float32
    n = noise.size
    assert abs(noise.mean(dtype=np.float64)) < 5 / n**0.5
    assert abs(noise.var(dtype=np.float64) - 1) < 5 * (2 / n) ** 0.5
    for level in (0.01, 0.2, 0.5, 0.9, 0.999):
        below = (noise < NormalDist().inv_cdf(level)).mean()
        assert abs(below - level) < 5 * (level * (1 - level) / n) ** 0.5
    for one, other in ((noise[:, :-1], noise[:, 1:]), (noise[:-1], noise[1:])):
        assert abs((one * other).mean(dtype=np.float64)) < 5 / one.size**0.5


def test_noise_comes_on_top_in_normalised_units_and_changes_no_other_choice():
    index = np.arange(40)
    plain = some_images(shift=2, flip=True).augmented(index, 7, 8)
    noisy = some_images(shift=2, flip=True, noise=0.25).augmented(index, 7, 8)
    words = sample_words(7, 8, index, words_needed(90, 2, True, 0.25))
    added = 0.25 * gaussian(words, 90).reshape(40, 6, 5, 3)
    np.testing.assert_allclose(noisy["image"] - plain["image"], added, atol=2e-6)
    np.testing.assert_array_equal(noisy["label"], plain["label"])
    # The moves are the same without mirroring: each image is one of the two.
    unflipped = some_images(shift=2).augmented(index, 7, 8)["image"]
    same = (plain["image"] == unflipped).all((1, 2, 3))
    turned = (plain["image"] == unflipped[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ turned).all()
    assert 5 < same.sum() < 35  # 20 expected, deviation 3.2


def test_digits_hold_every_scan_of_scikit_learn_once_in_a_fixed_stratified_split():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    first, second = train_test_split(
        np.arange(1797), test_size=0.2, stratify=scans.target, random_state=0
    )
    # The split must outlive a scikit-learn that draws another one.
    assert hashlib.sha256(np.sort(second).astype("<i8").tobytes()).hexdigest() == (
        "2fbaae31b8c6aad12464a07771b64269876d904bfed86f77a63c8265fa201621"
    )
    data = load(DataSpec(source="digits", noise=0.1))
    assert (data.task, data.classes, data.vocabulary, data.tokenizer) == (
        "classify", 10, None, None)  # fmt: skip
    raw = scans.images[first]  # 0..16, as in float64
    mean, std = raw.mean(), raw.std()
    np.testing.assert_allclose(data.record["mean"], [mean / 16], rtol=1e-12)
    np.testing.assert_allclose(data.record["std"], [std / 16], rtol=1e-12)
    for part, index, size in ((data.train, first, 1437), (data.validation, second, 360)):
        assert part.samples == size == index.size
        batch = part.take(np.arange(size))
        assert batch["image"].shape == (size, 8, 8, 1)
        np.testing.assert_array_equal(batch["label"], scans.target[index])
        expected = (scans.images[index] - mean) / std
        np.testing.assert_allclose(batch["image"][..., 0], expected, atol=1e-6, rtol=0)
        share = np.bincount(batch["label"]) / np.bincount(scans.target)
        np.testing.assert_allclose(share, size / 1797, atol=1 / 174)  # one of the rarest class
    assert data.record["source"] == "digits"
    assert data.record["samples"] == {"train": 1437, "validation": 360}
    assert data.record["image"] == [8, 8, 1]
    # Augmentation is for training alone.
    one = np.arange(1)
    assert not np.array_equal(
        data.train.augmented(one, 0, 0)["image"], data.train.take(one)["image"]
    )
    np.testing.assert_array_equal(
        data.validation.augmented(one, 0, 0)["image"], data.validation.take(one)["image"]
    )


@pytest.mark.parametrize("name", ["a-ubyte", "a-ubyte.gz"])
def test_idx_files_are_read_plain_or_packed(tmp_path, name):
    array = RNG(5).integers(0, 256, (3, 4, 2), np.uint8)
    np.testing.assert_array_equal(read_idx(write(tmp_path / name, idx(array)), 3), array)


def test_an_unpacked_file_that_kept_its_gz_name_is_read(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(idx(np.arange(5)))
    assert read_idx(path, 1).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda data: b"", "begins with nothing"),
        (lambda data: b"PK" + data[2:], "begins with 50 4b 08 03.* begins with 00 00 08 03"),
        (lambda data: b"\0\0\x0d" + data[3:], "begins with 00 00 0d 03"),
        (lambda data: data[:9], "9 bytes end within the idx header of 16"),
        (lambda data: data[:-1], "23 bytes of data, but the header announces 3 x 4 x 2 = 24"),
        (
            lambda data: data + b"\0",
            "25 or more bytes of data, but the header announces .* = 24",
        ),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, damage, match):
    path = write(tmp_path / "x-ubyte.gz", damage(idx(np.zeros((3, 4, 2)))))
    with pytest.raises(ValueError, match=f"x-ubyte.gz: .*{match}"):
        read_idx(path, 3)


@pytest.mark.parametrize("keep", [3, 12, -5])
def test_a_truncated_gzip_file_is_refused(tmp_path, keep):
    path = write(tmp_path / "x.gz", idx(RNG(0).integers(0, 256, (9, 9, 9))))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.gz: cannot be read, or is damaged"):
        read_idx(path, 3)


def test_idx_images_without_a_label_each_are_refused(tmp_path):
    images = write(tmp_path / "i", idx(np.zeros((3, 2, 2))))
    labels = write(tmp_path / "l", idx(np.zeros(2)))
    with pytest.raises(ValueError, match=r"3 images, but .*l holds 2 labels"):
        read_idx_pair(images, labels)


GREY = np.arange(30, dtype=np.uint8).reshape(6, 5) * 8
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)


def test_pictures_of_every_kind_are_the_same_bytes(tmp_path):
    write(tmp_path / "in" / "g.png", picture(GREY))
    given = [
        picture(GREY),
        {"bytes": picture(GREY, "BMP"), "path": None},
        {"bytes": None, "path": "in/g.png"},
        "in/g.png",
        tmp_path / "in" / "g.png",
        GREY,
        GREY[..., None],
        GREY.tolist(),
        GREY.astype(np.int64),
        picture(GREY, "PPM"),
    ]
    made = pictures.stack(given, None, place, tmp_path)
    assert made.shape == (len(given), 6, 5, 1)
    assert made.dtype == np.uint8
    assert (made[..., 0] == GREY).all()


def test_colour_pictures_keep_their_channels_and_grey_ones_among_them_get_three():
    made = pictures.stack([picture(COLOUR), COLOUR], None, place)
    np.testing.assert_array_equal(made, [COLOUR, COLOUR])
    palette = picture(COLOUR[:1, :2], mode="P")  # two colours, which a palette keeps
    mixed = pictures.stack([GREY[:1, :2], palette], None, place)
    np.testing.assert_array_equal(mixed[0], np.repeat(GREY[:1, :2, None], 3, 2))
    np.testing.assert_array_equal(mixed[1], np.asarray(
        Image.open(io.BytesIO(palette)).convert("RGB")))  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 255, [255]),
        ("LA", (77, 5), [77]),
        ("RGBA", (1, 2, 3, 4), [1, 2, 3]),
        ("CMYK", (0, 0, 0, 255), [0, 0, 0]),
    ],
)
def test_other_modes_become_grey_or_colour_without_transparency(mode, value, expected):
    form = "TIFF" if mode == "CMYK" else "PNG"
    made = pictures.stack([picture((value, (2, 3)), form, mode)], None, place)
    assert made.shape == (1, 3, 2, len(expected))
    assert (made == expected).all()


def test_resizing_makes_squares_and_keeps_what_is_flat():
    steps = np.repeat(np.array([[10, 200]], np.uint8), 40, 1).repeat(30, 0)  # two halves
    made = pictures.stack([steps, GREY, np.full((3, 9), 50, np.uint8)], 8, place)
    assert made.shape == (3, 8, 8, 1)
    assert (made[0, :, :2, 0] == 10).all()  # the bicubic edge reaches one pixel further
    assert (made[0, :, 6:, 0] == 200).all()
    assert (made[2] == 50).all()
    colour = pictures.stack([np.full((4, 7, 3), (9, 80, 200), np.uint8)], 5, place)
    assert (colour == [9, 80, 200]).all()
    whole = np.zeros((2, 8, 8, 1), np.uint8)
    assert pictures.stack(whole, 8, place) is whole
    assert pictures.stack(whole, 4, place).shape == (2, 4, 4, 1)


JPEG = picture(np.asarray(Image.fromarray(GREY).resize((64, 64))), "JPEG")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (b"no picture", "cannot identify"),
        (b"", "cannot identify the format of its 0 bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is not run"),
        (5, "whole numbers"),
        ([1, 2], "whole numbers"),
        ([], "whole numbers"),
        (picture(COLOUR)[:60], ""),
        (JPEG[:-90], "truncated"),
        ({"bytes": None, "path": None}, "NoneType"),
        (None, "NoneType"),
        ("absent.png", r"absent\.png"),
        (GREY / 255, "whole numbers"),
        (GREY.astype(np.int64) + 100, "whole numbers"),
        (GREY.astype(np.int64) - 1, "whole numbers"),
        (np.zeros((6, 5, 5), np.uint8), ""),
        (picture(GREY.astype(np.uint16) * 256), "8 bits"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_row(tmp_path, wrong, match):
    with pytest.raises(
        ValueError, match=f"here: row 1.* is not a picture that can be read: .*{match}"
    ):
        pictures.stack([GREY, wrong], None, place, tmp_path)


def test_pictures_of_two_sizes_are_refused_without_a_size():
    with pytest.raises(
        ValueError, match=r"row 1 is a picture of \(5, 6\).*\(6, 5\).*set data.image_size"
    ):
        pictures.stack([GREY, GREY.T], None, place)


UPRIGHT = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
SAVED = {
    # Which side of the scene the file's first row is, and its first column: TIFF 6.0, page 36.
    1: lambda scene: scene,  # top, left
    2: lambda scene: scene[:, ::-1],  # top, right
    3: lambda scene: scene[::-1, ::-1],  # bottom, right
    4: lambda scene: scene[::-1],  # bottom, left
    5: lambda scene: scene.T,  # left, top
    6: lambda scene: scene.T[::-1],  # right, top
    7: lambda scene: scene.T[::-1, ::-1],  # right, bottom
    8: lambda scene: scene.T[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", SAVED)
def test_pictures_are_upright_as_their_exif_says(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    saved = np.ascontiguousarray(SAVED[orientation](UPRIGHT))
    colour = Image.fromarray(saved).convert("RGB") if form == "WEBP" else Image.fromarray(saved)
    colour.save(out, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    made = pictures.stack([out.getvalue()], None, place)
    assert made.shape[1:3] == (2, 3)
    np.testing.assert_array_equal(made[0, ..., 0], UPRIGHT)


@pytest.mark.parametrize("wrong", [{"std": (1e-320,)}, {"mean": (1e308,)}, {"mean": (-1e300,)}])
def test_values_that_float32_does_not_hold_are_refused(wrong):
    labels = np.zeros(1, np.int32)
    with pytest.raises(ValueError, match=r"mean=.* and std=.* values that float32 does not hold"):
        Images(GREY[None, ..., None], labels, 2, **{"mean": (0.5,), "std": (0.25,), **wrong})
