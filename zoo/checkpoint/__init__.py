"""Checkpoints of a run: named trees of arrays through Orbax, and a JSON record of what they are.

May import config and utils.

    folder/
      checkpoint-000007/       one save; the number counts saves, it is not the training step
        params/                one folder a part, written by Orbax
        optimiser/
        record.json            what the caller says about it: model, variant, step, metrics
        checksums.json         size and SHA-256 of every file above, and of these lines together
      checkpoint-000008/
      .partial-<random>/       a save that was interrupted, or an old one half removed

A save is written in full to a hidden folder, which then takes its name in one rename. So a named
checkpoint is complete, however and whenever the process was stopped, and none is ever overwritten.
Its files are synced to the disk before it has its name, and so before an older one is removed.
Saves are numbered because the step is not a safe name: a run restarted from an older checkpoint
comes by the same steps again. One run at a time saves into a folder, which is for the caller to see
to (`zoo.train.run` holds a lock); of its processes, the first one alone writes.

Parameters are the part "params" of every checkpoint. `load` reads and knows only the parts that it
is asked for, so evaluation needs no optimiser.

  >>> import tempfile
  >>> import jax, jax.numpy as jnp, optax
  >>> folder, params = tempfile.mkdtemp(), {"kernel": jnp.ones((2, 3))}
  >>> state = optax.adam(1e-3).init(params)
  >>> with Saver(folder, keep=2, keep_best=1, best=("accuracy", "max")) as saver:
  ...     tree = {"params": params, "optimiser": tree_to_dict(state)}
  ...     saver.save(tree, {"step": 1}, metric=0.5)  # written in the background
  >>> tree, record = load(folder, {"params": jax.eval_shape(lambda: params)})
  >>> sorted(tree), record["step"], record["metric"]["value"]
  (['params'], 1, 0.5)
"""

from zoo.checkpoint.disk import check_writable
from zoo.checkpoint.folder import DamagedCheckpoint, best, checkpoints, latest, load_record
from zoo.checkpoint.loading import contents, load
from zoo.checkpoint.named import dict_to_tree, tree_to_dict
from zoo.checkpoint.saving import Saver, save

__all__ = [
    "DamagedCheckpoint",
    "Saver",
    "best",
    "check_writable",
    "checkpoints",
    "contents",
    "dict_to_tree",
    "latest",
    "load",
    "load_record",
    "save",
    "tree_to_dict",
]
