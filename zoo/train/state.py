"""What training carries from step to step, and its two layouts.

A canonical state is what checkpoints hold: it knows nothing of a mesh. A sharded state is what
runs: parameters in the layout of a number of ranks (see `snapjax.parallel.sharding`), each array on
its devices. The optimiser's moments are trees like the parameters, and are laid out like them.
`zoo.train.step.Trainer` goes from one to the other.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.parallel.sharding import place, unplace
from zoo import checkpoint
from zoo.models.model import Model, Params
from zoo.train import placement


class State(NamedTuple):
    """What training carries from step to step.

    Attributes:
      trainable, plans: the parameters, parted by `snapjax.codes.parameters.split_plan`.
      optimiser: optax's state.
      average: moving average of `trainable`, or None.
      step: int32 scalar, updates made.
      finite: bool scalar; false from the first step whose loss or gradients are not finite. From
        then on nothing changes, so that the state is the last good one when the host looks.
    """

    trainable: Any
    plans: Any
    optimiser: Any
    average: Any
    step: jax.Array
    finite: jax.Array


def init_state(params: Params, optimiser: optax.GradientTransformation, averaged: bool) -> State:
    """The state before the first step, in the layout of the parameters; traceable.

    Args:
      params: canonical, or in the layout of a mesh.
      optimiser: whose state it holds.
      averaged: whether a moving average of the weights is kept.
    """
    trainable, plans = split_plan(params)
    average = trainable if averaged else None
    step, finite = jnp.zeros((), jnp.int32), jnp.ones((), bool)
    return State(trainable, plans, optimiser.init(trainable), average, step, finite)


def state_shape(model: Model, optimiser: optax.GradientTransformation, averaged: bool) -> State:
    """Shapes and dtypes of a canonical state of a model, as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(lambda params: init_state(params, optimiser, averaged), model.param_shape)


def to_ranks(tree: Any, ranks: int, stages: int) -> Any:
    """A canonical state, or parameters, in the layout of so many ranks; traceable."""
    return placement.map_params(lambda params: place(params, ranks, stages), tree)


def from_ranks(tree: Any) -> Any:
    """The inverse of `to_ranks`, of any number of ranks."""
    return placement.map_params(_unplace, tree)


_unplace = jax.jit(unplace)


def to_parts(state: State) -> dict[str, Any]:
    """A canonical state as the named parts of a checkpoint; its step is in the record."""
    parts = {
        "params": merge_plan(state.trainable, state.plans),
        "optimiser": checkpoint.tree_to_dict(state.optimiser),
    }
    if state.average is not None:
        parts["ema"] = merge_plan(state.average, state.plans)
    return parts


def from_parts(parts: dict[str, Any], step: int, like: State) -> State:
    """The inverse of `to_parts`.

    Args:
      parts: of a checkpoint.
      step: from its record.
      like: its structure, see `state_shape`.
    """
    trainable, plans = split_plan(parts["params"])
    average = split_plan(parts["ema"])[0] if "ema" in parts else None
    optimiser = checkpoint.dict_to_tree(parts["optimiser"], like.optimiser)
    return State(trainable, plans, optimiser, average, np.int32(step), np.bool_(True))
