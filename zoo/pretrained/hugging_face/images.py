"""How a folder's images are prepared: `preprocessor_config.json`, in and out."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.data import RESAMPLES
from zoo.utils.files import read_json, write_json

FILE = "preprocessor_config.json"
READ = frozenset(
    """
    size default_to_square do_center_crop crop_size do_resize resample do_rescale rescale_factor
    do_normalize image_mean image_std
    """.split()  # noqa: SIM905
)
# They name the class, or say what becomes of the arrays; pictures are always made RGB here.
WITHOUT_EFFECT = frozenset(
    """
    image_processor_type feature_extractor_type processor_class _processor_class
    _valid_processor_keys do_convert_rgb data_format input_data_format return_tensors device
    disable_grouping
    """.split()  # noqa: SIM905
)
PLAIN = "ViTImageProcessor"
BILINEAR = 2  # Pillow's number, and what ViTImageProcessor takes where nothing is said


def read(folder: Path, image_size: int, channels: int) -> dict[str, Any]:
    """{"size", "resample", "mean", "std"} of images in [0, 1], and "resize" where the middle of
    larger ones is cut out; or nothing where the folder says nothing.

    Raises:
      ValueError: lists what does not fit the model, and what is not done here.
    """
    if not (folder / FILE).is_file():
        return {}
    fields = read_json(folder / FILE)
    problems = [
        f"{name}={value!r} is not handled"
        for name, value in fields.items()
        if name not in READ | WITHOUT_EFFECT and value not in (None, False)
    ]
    side, crop = _side(fields, image_size), None
    if fields.get("do_center_crop"):
        crop = _square(fields.get("crop_size"))
        if not fields.get("do_resize", True):
            problems.append("do_center_crop=True needs do_resize=True")
    size = side if crop is None else crop
    if size != image_size:
        problems.append(f"size={size} is not the model's image_size={image_size}")
    elif not isinstance(side, int) or side < size:
        problems.append(f"size={side} must be one side of at least crop_size={size}")
    number = fields.get("resample", BILINEAR)
    resample = next((name for name, known in RESAMPLES.items() if known == number), None)
    if resample is None:
        numbers = ", ".join(map(str, RESAMPLES.values()))
        problems.append(f"resample={number!r} must be one of {numbers}")
    factor = fields.get("rescale_factor", 1 / 255)
    usual = isinstance(factor, int | float) and math.isclose(factor, 1 / 255, rel_tol=1e-6)
    if not (fields.get("do_rescale", True) and usual):
        problems.append(
            f"do_rescale={fields.get('do_rescale', True)} and rescale_factor={factor}: pixels are "
            "always divided by 255; put the rest of the factor into image_mean and image_std"
        )
    # Without resizing they must have that size already.
    resized = {"size": size, "resample": resample}
    prepared = resized if fields.get("do_resize", True) else {}
    if side != size:
        prepared["resize"] = side
    scaled = fields.get("do_normalize", True)
    problems += _left_out(fields, scaled)
    for name, ours, otherwise in (("image_mean", "mean", 0.0), ("image_std", "std", 1.0)):
        value = fields.get(name, [0.5] * channels) if scaled else [otherwise] * channels
        if not _numbers(value, channels) or (ours == "std" and min(value) <= 0):
            problems.append(
                f"{name}={value} must be a list of the model's num_channels={channels} numbers"
                + (" above 0" if ours == "std" else "")
            )
        prepared[ours] = value
    if problems:
        raise ValueError(f"{folder / FILE}: " + "; ".join(problems))
    return prepared


def _side(fields: Mapping[str, Any], image_size: int) -> Any:
    """The side of the square that images are resized to; what is none is given as it is."""
    size = _square(fields.get("size", image_size))
    if fields.get("default_to_square") is False and isinstance(size, int):
        return {"shortest_edge": size}
    return size


def _square(size: Any) -> Any:
    """The side of a square, where it is one."""
    if isinstance(size, dict) and size.keys() == {"height", "width"}:
        return size["height"] if size["height"] == size["width"] else size
    return size


def _left_out(fields: Mapping[str, Any], scaled: bool) -> list[str]:
    """A line where another class than ViT's leaves out what its own defaults, which differ from
    those here, would decide."""
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type") or PLAIN
    needed = ("size", "resample", "do_center_crop", *(("image_mean", "image_std") * bool(scaled)))
    missing = [name for name in needed if name not in fields]
    if kind in (PLAIN, f"{PLAIN}Fast", "ViTFeatureExtractor") or not missing:
        return []
    return [
        f"image_processor_type={kind!r} has defaults of its own; write out {', '.join(missing)}"
    ]


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )


def write(folder: Path, config: Any, preprocessing: Mapping[str, Any]) -> None:
    """The inverse of `read`.

    Args:
      folder: of the model.
      config: a `ViTConfig`.
      preprocessing: from `read`, or of a run of ours; nothing is written of an empty one.
    """
    if not preprocessing:
        return
    size = config.image_size
    resize = preprocessing.get("resize", size)
    fields = {
        "image_processor_type": "ViTImageProcessor" if resize == size else "DeiTImageProcessor",
        "do_resize": True,
        "size": {"height": resize, "width": resize},
        "resample": RESAMPLES[preprocessing.get("resample", "bicubic")],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": "mean" in preprocessing,
    }
    if resize != size:
        fields |= {"do_center_crop": True, "crop_size": {"height": size, "width": size}}
    if "mean" in preprocessing:
        fields |= {"image_mean": preprocessing["mean"], "image_std": preprocessing["std"]}
    write_json(folder / FILE, fields)
