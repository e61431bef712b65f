"""Counts of whole models: published figures to the last digit, pipelines to the last byte."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from cost_programs import shape
from meshes import FEATURES, TOKENS, step_function, toy_batch, toy_params, toy_pipeline

from snapjax import cost
from snapjax.boundary import Boundary
from snapjax.cost.hlo import counts as hlo
from snapjax.parallel.sharding import make_mesh, place
from zoo.cost import models
from zoo.cost.priced import build
from zoo.models.layers import PreNormBlock
from zoo.models.registry import create_model


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def forward(model, batch):
    """(counts of one forward pass on one device, the parameters' shapes)."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    run = lambda params, batch: model.apply(params, batch)[0]
    return cost.trace(run, params, batch, strict=True, parameters=params), params


def bert(width, layers, heads, tokens, batch=1, task="classify", **options):
    model = create_model(
        "bert_nano",
        stages=1,
        vocabulary=30522,
        positions=512,
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=4 * width,
        task=task,
        **options,
    )
    inputs = {"input_ids": shape(batch, tokens, dtype=jnp.int32)}
    if task == "mlm":
        inputs["position"] = shape(batch, 20, dtype=jnp.int32)
    return model, inputs


# Name, sizes, parameters and multiply-accumulates with the pooler and without classifier: those of
# Hugging Face's BertModel (109,482,240 and 335,141,888 parameters), the count of calflops (11.174
# GMACs at 128 tokens) and the formula below.
BERTS = [
    ("bert_base", (768, 12, 12, 128), 109_482_240, 11_174_215_680),
    ("bert_large", (1024, 24, 16, 128), 335_141_888, 39_461_060_608),
    ("bert_base, 512 tokens", (768, 12, 12, 512), 109_482_240, None),
    ("bert_small", (512, 4, 8, 128), None, None),
    ("bert_tiny", (128, 2, 2, 77), None, None),
]


def encoder_macs(width, layers, tokens, mlp):
    """Query, key, value and output; scores and mixing; the two layers of the MLP."""
    return layers * (4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * mlp)


@pytest.mark.parametrize(("name", "sizes", "parameters", "macs"), BERTS, ids=lambda row: str(row))
def test_bert_to_the_last_digit(name, sizes, parameters, macs):
    width, layers, heads, tokens = sizes
    counts, _ = forward(*bert(width, layers, heads, tokens))
    expected = encoder_macs(width, layers, tokens, 4 * width) + width**2
    assert macs in (None, expected)
    assert counts.macs == expected + 2 * width  # and the classifier of 2 classes
    if parameters is not None:
        assert counts.parameters == parameters + 2 * width + 2


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("bert_base", 109_482_240, 11_174_215_680),
        ("bert_large", 335_141_888, 39_461_060_608),
        ("vit_base_patch16_224", 86_567_656, 17_563_828_224),
        ("vit_small_patch16_224", 22_050_664, 4_598_882_304),  # DeiT-S
    ],
)
@pytest.mark.parametrize("stages", [1, 4])
def test_published_presets_as_they_are_priced(name, parameters, macs, stages):
    model = build(name, "ann", stages).model
    counts = models.trace_step(model, models.Setting(batch=2, microbatches=2))
    assert (counts.parameters, counts.global_macs) == (parameters, 2 * macs)
    assert not counts.unpriced


def test_a_text_is_priced_with_all_of_its_inputs():
    """An input under a name that the model does not read would be dead code, and free."""
    model = build("bert_nano", "ann", 1, task="mlm").model
    batch = models.batch_shapes(model, models.Setting(batch=2, tokens=20))
    tokens, targets = (2, 20), (2, 3)  # 15 % of 20 are masked
    assert {name: leaf.shape for name, leaf in batch.items()} == {
        "input_ids": tokens,
        "token_type_ids": tokens,
        "attention_mask": tokens,
        "position": targets,
        "weight": targets,
        "label": targets,
    }


class ViT(nn.Module):
    """The published ViT, of plain Linen: a class token, and a classifier of 1000 on it."""

    width: int
    layers: int
    heads: int

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(self.width, (16, 16), (16, 16), name="patch")(images)
        x = x.reshape(x.shape[0], -1, self.width)
        first = self.param("class", nn.initializers.zeros, (1, 1, self.width))
        first = jnp.broadcast_to(first, (x.shape[0], 1, self.width))
        x = jnp.concatenate([first, x], 1)
        x = x + self.param("position", nn.initializers.zeros, (1, x.shape[1], self.width))
        for layer in range(self.layers):
            x = PreNormBlock(self.heads, 4 * self.width, 1e-6, name=f"block{layer}")(x)
        return nn.Dense(1000, name="classifier")(nn.LayerNorm(name="norm")(x)[:, 0])


@pytest.mark.parametrize(
    ("sizes", "parameters", "macs"),
    [
        # timm's vit_base_patch16_224 and deit_small_patch16_224.
        ((768, 12, 12), 86_567_656, 17_563_828_224),
        ((384, 12, 6), 22_050_664, 4_598_882_304),
        # deit_tiny_patch16_224 has 5,717,416 parameters; 196 patches, 197 tokens.
        (
            (192, 12, 3),
            5_717_416,
            196 * 768 * 192 + encoder_macs(192, 12, 197, 768) + 192 * 1000,
        ),
    ],
)
def test_vit_to_the_last_digit(sizes, parameters, macs):
    model, images = ViT(*sizes), shape(1, 224, 224, 3)
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    counts = cost.trace(model.apply, params, images, strict=True, parameters=params)
    assert (counts.parameters, counts.macs) == (parameters, macs)
    by_path = counts.by_path()
    assert by_path["ViT/patch"] == 196 * 768 * sizes[0]
    assert by_path["ViT/block3/mlp/up"] == 197 * 4 * sizes[0] ** 2
    assert by_path["ViT/block3/attention"] == 2 * 197**2 * sizes[0]


@pytest.mark.parametrize("name", ["vit_nano_patch2_8", "vit_tiny_patch4_28"])
def test_a_vit_of_the_zoo_by_formula(name):
    model = create_model(name, stages=1)
    config, pixels = model.config, model.config.image_size
    counts, _ = forward(model, {"image": shape(3, pixels, pixels, config.channels)})
    patch = config.patch_size**2 * config.channels
    assert counts.macs == 3 * (
        config.tokens * patch * config.width
        + encoder_macs(config.width, config.layers, config.tokens, config.mlp_width)
        + config.width * config.classes
    )
    assert counts.by_path()[f"scan[{config.layers}]/PreNormBlock/mlp/up"] == (
        3 * config.layers * config.tokens * config.width * config.mlp_width
    )


def test_training_bert_multiplies_three_times_as_much():
    """Backward each product is two: of the inputs and of the weights. The table's lookups and the
    first layer's inputs, embeddings that are trained too, change nothing."""
    model, batch = bert(64, 3, 4, 32, batch=2)
    counts, params = forward(model, batch)
    loss = lambda params, batch: model.apply(params, batch)[0].sum()
    assert cost.trace(jax.value_and_grad(loss), params, batch).macs == 3 * counts.macs


def test_elementwise_work_by_the_conventions_of_electra():
    """flops_computation.py of google-research/electra: operations a token of BERT-base at 512
    tokens, without dropout: softmax 5, scale 1, biases and residuals 1, activation 8, norm 5.

    Its norm leaves three of ours out (two subtractions of the mean, one multiplication by the
    inverse deviation), and its tanh GELU has 8 where the exact one has 5: counted as its are.
    """
    width, layers, heads, tokens = 768, 12, 12, 512
    counts, _ = forward(*bert(width, layers, heads, tokens))
    block = counts.select(lambda op: "PostNormBlock" in op.path)
    at = lambda name, *primitives: sum(
        op.count
        for op in block.ops
        if op.path.endswith(name)
        and op.kind not in ("mac", "move")
        and (not primitives or op.primitive in primitives)
    )
    each, mlp = layers * tokens, 4 * width
    softmax = at("/attention") - at("/attention", "mul")
    assert softmax == pytest.approx(5 * each * tokens * heads, rel=2e-3)
    assert at("/attention", "mul") == each * tokens * heads
    for name in ("query", "key", "value", "out", "down"):
        assert at(f"/{name}") == each * width
    assert at("/up") == each * mlp
    assert at("PostNormBlock") == 2 * each * width
    erfs = at("/mlp", "erf", "erfc")
    assert erfs == each * mlp
    norms = [f"/norm_{name}" for name in ("attention", "mlp")]
    norm = sum(at(name, "reduce_sum", "square", "add") + at(name, "mul") / 2 for name in norms)
    assert norm == pytest.approx(2 * 5 * each * width, rel=5e-3)

    ours = (
        at("/attention")
        + sum(at(f"/{name}") for name in ("query", "key", "value", "out", "down", "up"))
        + at("PostNormBlock")
        + 8 * erfs
        + norm
    )
    published = each * ((3 + 1 + 1 + 1 + 1 + 4 + 2 * 5 + 8 * 4) * width + (5 + 1) * tokens * heads)
    assert ours == pytest.approx(published, rel=0.02)

    # And everything as it really is, against everything as it is published.
    total = 2 * block.macs + block.total(*(set(cost.counts.ELEMENTWISE_KINDS)))
    matmuls = 2 * encoder_macs(width, layers, tokens, mlp)
    assert total == pytest.approx(matmuls + published, rel=0.02)


@pytest.mark.parametrize("data", [1, 2])
@pytest.mark.parametrize(
    "boundary",
    [
        Boundary(FEATURES, "phase", steps=3, budget=13),
        Boundary(FEATURES, "latency", steps=2, gradient_wire="bfloat16"),
        Boundary(FEATURES, "ternary", steps=2, gradient_wire="int8"),
        Boundary(FEATURES, "rate", steps=4, budget=FEATURES, kept_features=7, gradient_wire="int4"),
        Boundary(FEATURES, "phase", budget=FEATURES, wire="events", event_capacity=2),
        Boundary(FEATURES, "bfloat16"),
        Boundary(FEATURES, "int8"),
    ],
    ids=lambda boundary: f"{boundary.code}-{boundary.wire}-{boundary.gradient_wire}",
)
def test_hops_of_a_pipeline_to_the_last_byte(boundary, data):
    pipeline = toy_pipeline(boundary, data, 4, microbatches=3)
    step, trainable = step_function(pipeline, toy_params(boundary, 4))
    batch, key = toy_batch(12), jax.random.key(0)
    counts = cost.trace(step, trainable, batch, key, strict=True)
    hops = [t for t in counts.transfers if t.collective == "ppermute"]
    tokens, chain = 12 // 3 // data * TOKENS, ((0, 1), (1, 2), (2, 3))
    (ahead,) = [t for t in hops if t.pairs == chain]
    (back,) = [t for t in hops if t.pairs == tuple((b, a) for a, b in chain)]
    assert len(hops) == 2
    # 3 microbatches through 4 ranks: 6 ticks, each of which sends.
    assert (ahead.executions, back.executions) == (6, 6)
    assert ahead.payload_bytes == max(
        boundary.message_bytes(tokens), boundary.message_bytes(tokens, "planes")
    )
    assert ahead.symbol == ("packed" if boundary.spiking else "uint8")
    assert back.payload_bytes == boundary.gradient_message_bytes(tokens)
    assert counts.by_axis()["stage"] >= 6 * (ahead.payload_bytes + back.payload_bytes)
    # All rows of the mesh have three hops each.
    hop = ahead.all_bytes_on("stage", counts.mesh)
    assert hop == 6 * ahead.payload_bytes * 3 * data

    if data == 2:  # as XLA compiles it, too
        compiled = step.lower(trainable, batch, key).compile()
        differences = cost.compare(counts, hlo.counts(compiled, pipeline.mesh))
        assert [d for d in differences if d.what.startswith("ppermute")] == []


@pytest.mark.parametrize(("stages", "microbatches"), [(4, 2), (2, 4)])
def test_a_pipelined_model_multiplies_what_one_device_does(stages, microbatches):
    """Idle ticks do not count, where the branch follows from the tick and the place."""
    model = create_model("vit_nano_patch2_8", variant="hnn", stages=stages)
    mesh = make_mesh(8 // stages, stages)
    params = jax.eval_shape(lambda: place(model.init(jax.random.key(0)), stages))
    batch = {
        "image": shape(16, 8, 8, 1),
        "label": shape(16, dtype=jnp.int32),
        "weight": shape(16),
    }
    counts = cost.trace(model.pipeline(mesh, microbatches), params, batch, cond="exact")
    alone, _ = forward(model, batch)
    assert counts.global_macs == alone.macs
    # The dearest branches: every rank does all of a busy one's work in all of its ticks.
    ticks = microbatches + stages - 1
    dearest = cost.trace(model.pipeline(mesh, microbatches), params, batch)
    assert dearest.macs * stages * microbatches > counts.macs * ticks


def test_a_pipelined_training_step_multiplies_what_one_device_does():
    """Forward and backward, each branch by its tick and place; the backward pass gets them from the
    forward one."""
    boundary = Boundary(FEATURES, "phase", steps=3, budget=13)
    params, batch = toy_params(boundary, 4), toy_batch(12)
    step, trainable = step_function(toy_pipeline(boundary, 2, 4, microbatches=3), params)
    counts = cost.trace(step, trainable, batch, cond="exact", strict=True)
    # 12 samples of 3 tokens. Embedding 4 -> 10 and its weights' gradient; 4 layers 10 -> 10 and two
    # gradients each; the head (12, 10) x (10,) and its gradients.
    tokens = 12 * TOKENS
    assert counts.global_macs == (
        2 * tokens * 4 * 10 + 3 * 4 * tokens * 10 * 10 + (1 + 2) * 12 * 10
    )
