"""Small dense teachers, their students, and short runs of those."""

from dataclasses import replace

import jax
import numpy as np
from data_files import letters, write

from zoo.config.specs import DistillSpec, ModelSpec, RunConfig, TrainSpec
from zoo.config.values import override
from zoo.data import DataSpec
from zoo.models.registry import create_model
from zoo.pretrained import single_file
from zoo.pretrained.source import PretrainedConfig

SIZES = {"vocabulary": 16, "width": 16, "heads": 2, "mlp_width": 32, "layers": 2}


def pair(task, code="phase", stages=2, seed=0):
    """A dense teacher, and a student of its shape with its weights and new boundaries."""
    dense = create_model("bert_nano", "ann", 1, task=task, **SIZES)
    params = dense.init(jax.random.key(seed))
    params["blocks"] = jax.tree.map(lambda leaf: 3 * leaf, params["blocks"])
    student = create_model("bert_nano", "hnn", stages, code, task=task, **SIZES)
    return dense, params, student, student.with_new_boundaries(params, jax.random.key(1))


def saved_teacher(folder, task="encode", tokenizer=True, seed=0, record=None):
    dense, params, _, _ = pair(task, seed=seed)
    path = folder / "dense.safetensors"
    source = PretrainedConfig("a test", {}, "MIT", {"max_tokens": 9})
    words = letters() if tokenizer else None
    return single_file.save(path, dense, params, source, record or {}, words)


def lines(folder, count=120):
    draw = np.random.default_rng(0)
    made = [" ".join(draw.choice(list("abcdefgh"), draw.integers(2, 7))) for _ in range(count)]
    return write(folder / "lines.txt", "\n".join(made) + "\n")


def distilled(teacher, source, *assignments, **sections):
    """The config of a short run."""
    config = RunConfig(
        "distill",
        ModelSpec("bert_nano", "hnn", 2),
        DataSpec(task="unlabelled", source=str(source), sequence=8, held_out=0.2),
        TrainSpec(epochs=1, batch_size=8, microbatches=1, learning_rate=3e-3, weight_decay=0.0),
        distill=DistillSpec(str(teacher)),
    )
    return override(replace(config, **sections), ["mesh.stage=1", "log.every=5", *assignments])
