"""How a folder's images are prepared: `preprocessor_config.json`, in and out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.files import read_json, write_json

FILE = "preprocessor_config.json"


def read(folder: Path, image_size: int, channels: int) -> dict[str, Any]:
    """{"size", "mean", "std"} of images in [0, 1], or nothing where the folder says nothing.

    Raises:
      ValueError: the images would not have the size or the channels of the model.
    """
    if not (folder / FILE).is_file():
        return {}
    fields = read_json(folder / FILE)
    size = fields.get("size", image_size)
    if isinstance(size, dict):
        sides = {size.get("height"), size.get("width"), size.get("shortest_edge")} - {None}
        size = sides.pop() if len(sides) == 1 else size
    crop = fields.get("crop_size") if fields.get("do_center_crop") else None
    if crop is not None:
        size = crop.get("height") if isinstance(crop, dict) else crop
    if size != image_size:
        raise ValueError(f"{folder / FILE}: size={size} is not the model's image_size={image_size}")
    prepared = {"size": size}
    if fields.get("do_normalize", True):
        for name, ours in (("image_mean", "mean"), ("image_std", "std")):
            value = fields.get(name, [0.5] * channels)
            if not isinstance(value, list) or len(value) != channels:
                raise ValueError(
                    f"{folder / FILE}: {name}={value} must be a list of the model's "
                    f"num_channels={channels} numbers"
                )
            prepared[ours] = value
    return prepared


def write(folder: Path, preprocessing: Mapping[str, Any]) -> None:
    """The inverse of `read`."""
    if not preprocessing:
        return
    size = preprocessing["size"]
    fields = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": "mean" in preprocessing,
    }
    if "mean" in preprocessing:
        fields |= {"image_mean": preprocessing["mean"], "image_std": preprocessing["std"]}
    write_json(folder / FILE, fields)
