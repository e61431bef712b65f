"""A model in another format: a folder for Hugging Face transformers, or one safetensors file."""

from pathlib import Path

from zoo.models.model import Model, Params, without_boundaries
from zoo.models.registry import registered
from zoo.pretrained import single_file
from zoo.pretrained.hugging_face import export
from zoo.pretrained.pretrained_model import Pretrained
from zoo.utils.outputs import check_place


def check_target(out: Path, cut: bool = False) -> None:
    """Raises ValueError when `convert` would not write there, OSError when it could not.

    Args:
      out: of `convert`.
      cut: the model is to be cut anew.
    """
    if out.exists():
        raise ValueError(f"out={str(out)!r} is there already; give a new name")
    if cut and not _is_file(out):
        raise ValueError(
            f"out={str(out)!r}: a folder for transformers has no boundaries; variant and stages "
            "are for a .safetensors file"
        )
    check_place(out.parent, f"out={str(out)!r}")


def check_model(out: Path, model: Model) -> None:
    """Raises ValueError when `convert` would not write a model there.

    Args:
      out: of `convert`.
      model: to be written.
    """
    if _is_file(out):
        return
    try:
        registered(model).weights.fields(model.config)
    except ValueError as error:
        raise ValueError(
            f"out={str(out)!r}: {error}. Name a file, {out.name}.safetensors: every command reads "
            "it, and load_pretrained"
        ) from error


def convert(loaded: Pretrained, out: Path) -> Params:
    """Writes a model, and gives the parameters that were written.

    Args:
      loaded: the model.
      out: NAME.safetensors for all of it, see `single_file`; any other name for a folder with the
        dense part, see `hugging_face.export`.

    Raises:
      ValueError: as `check_target` and `check_model`.
    """
    check_target(out)
    check_model(out, loaded.model)
    model, params, source = loaded.model, loaded.params, loaded.source
    if _is_file(out):
        single_file.save(out, model, params, source, loaded.record, loaded.tokenizer)
        return params
    export.save(
        out, model, params, tokenizer=loaded.tokenizer, preprocessing=source.preprocessing,
        labels=loaded.class_names,
    )  # fmt: skip
    return without_boundaries(params)


def _is_file(out: Path) -> bool:
    return out.suffix == ".safetensors"
