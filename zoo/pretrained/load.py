"""`load_pretrained`: a trained model by name or path, of whatever kind it is saved as."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from snapjax.boundary import Boundary
from snapjax.errors import check_types
from zoo.pretrained import model_folder, published, run_checkpoint, single_file
from zoo.pretrained.dispatch import Kind, kind_of
from zoo.pretrained.locate import find
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.source import check_digests
from zoo.pretrained.warm_start import partition, pooled
from zoo.utils.notes import note
from zoo.utils.trees import listed, not_finite


def load_pretrained(
    name: str | Path,
    averaged: bool = True,
    *,
    variant: str | None = None,
    stages: int | None = None,
    boundary: Boundary | str | None = None,
    task: str | None = None,
    ignore: Sequence[str] = (),
    pooling: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> Pretrained:
    """A trained model by name, model folder, run folder, checkpoint or Hugging Face folder.

    Args:
      name: one of `list_pretrained()`, a preset whose weights others publish ("minilm_l6"), the
        path of a folder or of one safetensors file, or a Hub id, "organisation/name" or
        "organisation/name@revision". Of the folder of a run the exported model is taken, or while
        it still runs its newest checkpoint.
      averaged: of a checkpoint, take the moving average of the weights where there is one.
      variant, stages, boundary: cut the model so, as in `create_model`, with new boundaries that
        are not calibrated (of spikes there is a note); None keeps what was loaded. A Hugging
        Face model comes uncut, stages=1.
      task: of a Hugging Face model, which head to take; None for the one it was saved with.
      ignore: of a Hugging Face model, patterns of tensors that may be left out.
      pooling: of an encoder, what makes one embedding of the states of its tokens: their "mean" or
        the "first" one, CLS; None as its folder says, and the mean where that says nothing.
      sha256: of the weight files, by name, where you know what they must be.

    Raises:
      ValueError: nothing there, or it is damaged, of another format or of another model;
        parameters that are not finite, naming them, or boundaries of another code or plan.

    Example:
      >>> load_pretrained("vit_nano_patch2_8.hnn_digits").model.boundary.bytes_per_token
      8
    """
    check_types(
        "load_pretrained",
        {"name": (name, str | os.PathLike), "averaged": (averaged, bool),
         "variant": (variant, str | None), "stages": (stages, int | None),
         "boundary": (boundary, Boundary | str | None), "task": (task, str | None),
         "ignore": (ignore, list | tuple), "sha256": (sha256, Mapping | None)},
    )  # fmt: skip
    path, source = find(name)
    kind, path = kind_of(path)
    if kind is Kind.HUGGING_FACE:
        loaded = published.load(path, task, ignore, source)
    elif task is not None or ignore:
        raise ValueError(f"{path}: task and ignore are for Hugging Face folders; this is none")
    elif kind is Kind.SINGLE_FILE:
        loaded = single_file.load(path)
    elif kind is Kind.MODEL_FOLDER:
        loaded = model_folder.load(path)
    else:
        loaded = run_checkpoint.load(path, averaged)
    if source is not None:
        loaded = published.check_known(loaded, str(name), source)
    if sha256 is not None:
        check_digests(loaded.source.sha256, sha256, str(name))
    if pooling is not None:
        loaded = pooled(loaded, pooling)
    _check(loaded, str(name))
    cut = partition(loaded, variant, stages, boundary)
    if cut is not loaded and cut.model.boundary.spiking and cut.model.config.stages > 1:
        note(
            f"load_pretrained({str(name)!r}): its {cut.model.config.stages - 1} spiking boundaries "
            "are new and fitted to nothing, and its scores are near chance. Fit them next with "
            "zoo.calibrate or `snapjax calibrate`; zoo.partition makes such a cut without a note"
        )
    return cut


def _check(loaded: Pretrained, name: str) -> None:
    """Raises ValueError for parameters that are not finite, or boundaries of another code."""
    if wrong := not_finite(loaded.params):
        raise ValueError(
            f"{name}: the parameters {listed(wrong)} are not finite: the run diverged, or the "
            "files are damaged; take an earlier checkpoint"
        )
    if "boundaries" in loaded.params:
        try:
            loaded.model.boundary.check(loaded.params["boundaries"])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
