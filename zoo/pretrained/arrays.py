"""Parameters as the named arrays of a safetensors file, and back; the digests of both."""

import hashlib
from collections.abc import Mapping

import jax
import numpy as np

from zoo.config.old_names import current_parameter, is_added
from zoo.models.model import Model, Params
from zoo.utils.trees import flatten, unflatten

Arrays = Mapping[str, np.ndarray]


def to_arrays(params: Params) -> dict[str, np.ndarray]:
    """Contiguous arrays on the host, with names such as "blocks.attention.query.kernel"."""
    flat = flatten(jax.device_get(params))
    return {name: np.asarray(leaf, order="C") for name, leaf in flat.items()}


def to_params(model: Model, arrays: Arrays) -> Params:
    """The inverse of `to_arrays`; arrays may have the names of an earlier version.

    Raises:
      ValueError: one error that lists every array that is missing, unknown or of another shape.
    """
    current = {current_parameter(name): array for name, array in arrays.items()}
    for name, leaf in flatten(model.param_shape).items():
        if name not in current and is_added(name):
            current[name] = np.zeros(leaf.shape, leaf.dtype)
    return unflatten(current, model.param_shape)


def serialise(arrays: Arrays, metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file."""
    from safetensors.numpy import save

    return save(dict(arrays), metadata=dict(metadata))


def digest(arrays: Arrays) -> str:
    """SHA-256 of names, dtypes, shapes and bytes of arrays, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def digest_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
