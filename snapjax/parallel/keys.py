"""The randomness of a pass: one key a use, the same on any number of ranks."""

from typing import Any, NamedTuple

import jax

Key = jax.Array | None


class PassKeys(NamedTuple):
    """The randomness of one microbatch's pass: one key a use, or None everywhere.

    The keys depend on the data shard, the microbatch and the stage, and on nothing of the mesh's
    "stage" axis, so that a pass draws the same numbers on any number of ranks.

    Attributes:
      base: key of this data shard's microbatch; see `of`.
    """

    base: Key

    @classmethod
    def of(cls, key: Key, shard: Any = 0, microbatch: Any = 0) -> "PassKeys":
        """The keys of a microbatch (int or int32 scalar) of a data shard (likewise)."""
        if key is None:
            return cls(None)
        work, _ = jax.random.split(key)  # the other half is of the links; see `Pipeline`
        return cls(jax.random.fold_in(jax.random.fold_in(work, shard), microbatch))

    @property
    def embed(self) -> Key:
        """Of the embedding."""
        return self._part(0)

    @property
    def head(self) -> Key:
        """Of the head."""
        return self._part(1)

    def stage(self, stage: Any) -> Key:
        """Of the work of a stage (int or int32 scalar)."""
        return self._part(2 + 2 * stage)

    def cut(self, stage: Any) -> Key:
        """Of the boundary after a stage, where no link is crossed."""
        return self._part(3 + 2 * stage)

    def _part(self, part: Any) -> Key:
        return None if self.base is None else jax.random.fold_in(self.base, part)
