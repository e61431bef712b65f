"""Learning from a dense teacher: its output and its last states are the targets, not labels.

The teacher is run on every batch before the step; the student's head compares on its own device, so
that nothing of the teacher crosses a boundary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.config.data import TOKENIZERS
from zoo.config.specs import DistillSpec, RunConfig
from zoo.models.layers import output
from zoo.models.losses import Arrays
from zoo.models.model import Model, Params, without_boundaries
from zoo.models.registry import family_of
from zoo.pretrained.arrays import digest
from zoo.pretrained.pretrained_model import Pretrained
from zoo.train.placement import put_tree
from zoo.utils.trees import flatten

OUTPUT, STATES = "teacher_output", "teacher_states"
TINY = 1e-6  # keeps the error of a token whose state is 0 finite


@dataclass(frozen=True, eq=False)
class Teacher:
    """A dense model that a student learns from.

    Attributes:
      model: in one piece.
      params: canonical, without boundaries.
      spec: what counts.
    """

    model: Model
    params: Params
    spec: DistillSpec

    @classmethod
    def from_model(cls, model: Model, params: Params, spec: DistillSpec) -> "Teacher":
        """The dense model behind any cut one."""
        return cls(model.cut(1), without_boundaries(params), spec)

    def replicate(self, mesh: Mesh) -> "Teacher":
        """The same teacher with its parameters on every device of a mesh."""
        everywhere = jax.tree.map(lambda leaf: NamedSharding(mesh, P()), self.params)
        return Teacher(self.model, put_tree(self.params, everywhere), self.spec)

    def add_targets(self, batch: Arrays) -> Arrays:
        """A batch with the teacher's targets in it.

        Args:
          batch: the family's inputs, (batch, ...).

        Returns:
          the same with "teacher_output", float32: embeddings (batch, width) or logits (batch,
          [predictions,] classes), and "teacher_states" (batch, tokens, width).
        """
        return {**batch, **self._targets(self.params, batch)}

    @cached_property
    def _targets(self) -> Callable[[Params, Arrays], Arrays]:
        def targets(params: Params, batch: Arrays) -> Arrays:
            model = self.model
            states = model.run_stage(params["blocks"], model.embed(params, batch), batch)
            result = output(model.head(params, states, batch))
            return {OUTPUT: result.astype(jnp.float32), STATES: states}

        return jax.jit(targets)

    def loss(self, result: Any, states: jax.Array, batch: Arrays) -> tuple[Arrays, Arrays]:
        """How far a student is from the teacher, as sums over samples.

        Of each sample: `spec.output` times the output's error plus `spec.states` times the states'
        plus `spec.similarity` times the similarity's. The states' error is the mean over real
        tokens of |x - t|^2 / |t|^2. The output's is, of embeddings, 1 - cos; of logits,
        T^2 KL(teacher || student) at temperature T (Hinton et al. 2015, arXiv 1503.02531). The
        similarity's is that of the sample's pair (see `similarity_error`).

        Args:
          result: of the student's head.
          states: what its head was given, (batch, tokens, width).
          batch: from `add_targets`, with "weight"; for the similarity rows 2 i and 2 i + 1 are a
            pair.

        Returns:
          sums {"loss", "correct" or "cosine", "weight"}, float32 scalars: "correct" counts hits of
          the labels, where there are any, or else of what the teacher predicts; "cosine" adds up
          the cosines of embeddings. And no per-sample arrays.
        """
        student, teacher = output(result).astype(jnp.float32), batch[OUTPUT]
        weight = batch["weight"].astype(jnp.float32)
        if self.model.config.task == "encode":
            counted, score = "cosine", cosine(student, teacher)
            error = 1 - score
        else:
            temperature = self.spec.temperature
            error = temperature**2 * kl_divergence(teacher / temperature, student / temperature)
            target = batch.get("label", teacher.argmax(-1))
            right = (student.argmax(-1) == target) & jnp.isfinite(student).all(-1)
            counted, score = "correct", right.astype(jnp.float32)
        # A sample with several predictions weighs as much as all of them.
        per_sample = weight.reshape(weight.shape[0], -1).sum(-1)
        drift = states_error(states, batch[STATES], batch.get("attention_mask"))
        loss = self.spec.output * (error * weight).sum()
        loss += self.spec.states * (drift * per_sample).sum()
        if self.spec.similarity:
            loss += self.spec.similarity * (similarity_error(student, teacher) * weight).sum()
        sums = {"loss": loss, counted: (score * weight).sum(), "weight": weight.sum()}
        return sums, {}


def cosine(one: jax.Array, other: jax.Array) -> jax.Array:
    """The cosine of the angle between vectors: (..., width) and (..., width) to (...)."""
    product = (one * other).sum(-1)
    lengths = (one**2).sum(-1) * (other**2).sum(-1)
    return product * jax.lax.rsqrt(lengths + TINY**2)


def similarity_error(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """How far the similarity of two texts is from the teacher's: (batch, width) twice to (batch,).

    Samples 2 i and 2 i + 1 are a pair, and both get (cos(s_2i, s_2i+1) - cos(t_2i, t_2i+1))^2.

    Raises:
      ValueError: an odd number of samples.
    """
    if len(student) % 2:
        raise ValueError(
            f"similarity: {len(student)} samples of one microbatch are not in pairs; make "
            "batch_size a multiple of 2 x data x microbatches"
        )
    difference = cosine(student[::2], student[1::2]) - cosine(teacher[::2], teacher[1::2])
    return jnp.repeat(difference**2, 2)


def kl_divergence(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """KL(softmax(teacher) || softmax(student)) in nats: (..., classes) to (...)."""
    log_teacher, log_student = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    return (jnp.exp(log_teacher) * (log_teacher - log_student)).sum(-1)


def states_error(states: jax.Array, teacher: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over a sample's real tokens of |x - t|^2 / |t|^2, float32 (batch,).

    Args:
      states, teacher: (batch, tokens, width).
      mask: bool (batch, tokens), true for real tokens; None when all are.
    """
    states, teacher = states.astype(jnp.float32), teacher.astype(jnp.float32)
    error = ((states - teacher) ** 2).sum(-1) / ((teacher**2).sum(-1) + TINY)
    if mask is None:
        return error.mean(-1)
    real = mask.astype(jnp.float32)
    return (error * real).sum(-1) / jnp.maximum(real.sum(-1), 1)


def check_teacher(teacher: Pretrained, config: RunConfig) -> None:
    """Raises ValueError when a model cannot teach the run of a config: it is of another family, it
    cannot label such data, or its token ids are not known."""
    name, model = config.distill.teacher, teacher.model
    if model.family is not family_of(config.model.name):
        raise ValueError(
            f"distill.teacher={name!r} is of another family than "
            f"model.name={config.model.name!r}; name a model of the teacher's"
        )
    task = model.config.task
    fits = {"mlm": ("mlm",), "encode": ("unlabelled",)}.get(task, ("unlabelled", task))
    if config.data.task not in fits:
        raise ValueError(
            f"data.task={config.data.task!r}: distill.teacher={name!r} is of task {task!r}; set "
            f"data.task to {' or '.join(map(repr, fits))}"
        )
    if config.distill.similarity and task != "encode":
        raise ValueError(
            f"distill.similarity={config.distill.similarity} is of embeddings, but "
            f"distill.teacher={name!r} is of task {task!r}; set it to 0"
        )
    trained_here = config.data.tokenizer in TOKENIZERS and hasattr(model.config, "vocabulary")
    if teacher.tokenizer is None and trained_here:
        raise ValueError(
            f"distill.teacher={name!r} has no tokenizer.json, and to one trained on the data "
            f"(data.tokenizer={config.data.tokenizer!r}) the same ids would be other words; put "
            "the teacher's into its folder, or set data.tokenizer to its path"
        )


def teacher_record(teacher: Pretrained) -> dict[str, Any]:
    """Which weights teach, JSON-able: where they come from, and the SHA-256 of the parameters."""
    arrays = flatten(jax.device_get(without_boundaries(teacher.params)))
    return {
        "source": teacher.source.source,
        "sha256": dict(teacher.source.sha256),
        "parameters": digest(arrays),
    }


def student_fields(teacher: Model) -> Mapping[str, Any]:
    """The fields of a family's config that make a student of the teacher's shape."""
    own = ("name", "stages", "boundary", "dropout", "precision")
    return {name: value for name, value in vars(teacher.config).items() if name not in own}


def student_preset(teacher: Model) -> str:
    """The preset that a student of a teacher is made from: its own, or one of its family, whose
    sizes `student_fields` replaces."""
    presets = teacher.family.PRESETS
    return teacher.config.name if teacher.config.name in presets else min(presets)
