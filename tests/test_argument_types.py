"""An argument of another type is an error that names the argument, its value and the type."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snapjax import (
    Boundary,
    Neuron,
    Pipeline,
    Surrogate,
    make_code,
    make_mesh,
    place,
    run_neuron,
    step_neuron,
    unplace,
)
from zoo import Encoder, calibrate, create_model, evaluate, list_models, load_pretrained, partition

BOUNDARY = Boundary(7)
PARAMS = BOUNDARY.init(jax.random.key(0))
X = jnp.zeros((2, 7))


def with_gain(gain):
    return {**PARAMS, "encoder": {**PARAMS["encoder"], "gain": gain}}


MODEL = create_model("bert_nano", "hnn", stages=2)


def pipeline(**options):
    parts = dict.fromkeys(("embed", "stage", "head"), lambda *_: None)
    mesh = make_mesh()
    return Pipeline(**parts, **{"boundary": BOUNDARY, "stages": 1, "mesh": mesh, "microbatches": 1,
                                **options})  # fmt: skip


CASES = [
    (lambda: Boundary(1.5), "Boundary: features=1.5 must be of type int"),
    (lambda: Boundary(True), "Boundary: features=True must be of type int"),
    (lambda: Boundary(np.bool_(True)), "features=np.True_ must be of type int"),
    (lambda: Boundary(7, budget="8"), "Boundary: budget='8' must be of type int or None"),
    (lambda: Boundary(7, budget=2.5), "budget=2.5 must be of type int or None"),
    (lambda: Boundary(7, steps=2.5), "steps=2.5 must be of type int"),
    (lambda: Boundary(7, kept_features=2.5), "kept_features=2.5 must be of type int or None"),
    (lambda: Boundary(7, rank=2.0), "rank=2.0 must be of type int or None"),
    (lambda: Boundary(7, code=None), "code=None must be of type str"),
    (lambda: Boundary(7, debug="yes"), "debug='yes' must be of type bool"),
    (lambda: Boundary(7, surrogate="atan"), "surrogate='atan' must be of type Surrogate"),
    (
        lambda: Boundary("7", steps=None),
        "Boundary: features='7' must be of type int; steps=None must be of type int",
    ),
    (lambda: make_code("phase", 3.0), "make_code: features=3.0 must be of type int"),
    (lambda: make_code(["phase"], 3), "make_code: name=['phase'] must be of type str"),
    (lambda: Surrogate(3), "Surrogate: name=3 must be of type str"),
    (lambda: Surrogate("atan", "2"), "Surrogate: alpha='2' must be of type float or None"),
    (lambda: Neuron(3), "Neuron: reset=3 must be of type str"),
    (lambda: Neuron(surrogate="atan"), "Neuron: surrogate='atan' must be of type Surrogate"),
    (lambda: run_neuron("soft", X, X[None], 1.0, 1.0), "run_neuron: neuron='soft' must be of type"),
    (lambda: step_neuron(None, X, X, 1.0, 1.0), "step_neuron: neuron=None must be of type Neuron"),
    (lambda: BOUNDARY.check(None), "Boundary: params=None must be {'encoder': ..., 'decoder': ..."),
    (lambda: BOUNDARY.check([PARAMS]), "must be {'encoder': ..., 'decoder': ...}"),
    (lambda: BOUNDARY.check(PARAMS["encoder"]), "must be {'encoder': ..., 'decoder': ...}"),
    (lambda: BOUNDARY.check({"encoder": 1, "decoder": 2}), "must be {'encoder': ..."),
    (lambda: Boundary(7, "int8").check({}), "params={} must be {'encoder': ..."),
    (lambda: BOUNDARY.apply(None, X), "params=None must be {'encoder': ..."),
    (lambda: BOUNDARY.apply(PARAMS, X.tolist()), "is a list; give an array of floats, such as jnp"),
    (lambda: BOUNDARY.apply(PARAMS, None), "x=None is a NoneType; give an array"),
    (lambda: BOUNDARY.apply(PARAMS, X > 0), "x has dtype bool, needs a floating-point one"),
    (
        lambda: jax.jit(BOUNDARY.check)(PARAMS),
        "params are traced, and have no values to check; call",
    ),
    (
        lambda: jax.jit(lambda x: BOUNDARY.calibrate(PARAMS, x))(X),
        "activations: are traced, and have no values to fit to; calibrate outside of jax.jit",
    ),
    (
        lambda: jax.jit(BOUNDARY.apply)(jax.tree.map(lambda a: a.astype(jnp.bfloat16), PARAMS), X),
        " has dtype bfloat16, needs int32",
    ),
    (lambda: BOUNDARY.message_bytes(-1), "message_bytes: tokens=-1 must not be negative"),
    (lambda: Boundary(7, "int8").message_bytes(-1), "tokens=-1 must not be negative"),
    (lambda: BOUNDARY.message_bytes(1, "plane"), "unknown wire 'plane'; did you mean 'planes'"),
    (lambda: BOUNDARY.gradient_message_bytes(2.5), "tokens=2.5 must be of type int"),
    (
        lambda: BOUNDARY.apply(with_gain(np.ones(7, complex)), X),
        "gain has dtype complex128, needs f",
    ),
    (
        lambda: BOUNDARY.apply(with_gain(np.ones(7, int)), X),
        "encoder/gain has dtype int64, needs flo",
    ),
    (
        lambda: BOUNDARY.check(with_gain(np.array(["a"] * 7))),
        "encoder/gain has dtype <U1, needs float",
    ),
    (lambda: BOUNDARY.message_bytes(2.5), "message_bytes: tokens=2.5 must be of type int"),
    (lambda: BOUNDARY.calibrate(PARAMS, X, axes=3), "calibrate: axes=3 must be of type str"),
    (lambda: BOUNDARY.calibrate(PARAMS, X, refit="no"), "calibrate: refit='no' must be of type bo"),
    (lambda: BOUNDARY.calibrate(PARAMS, "abc"), "activations: 'abc' is no array of real numbers"),
    (lambda: BOUNDARY.calibrate(PARAMS, None), "activations: None is no array of real numbers"),
    (lambda: BOUNDARY.calibrate(PARAMS, 3.0), "activations: need (samples >= 2, features=7), got"),
    (
        lambda: BOUNDARY.calibrate(PARAMS, np.eye(7) * 1j),
        "is no array of real numbers; give (samples, feat",
    ),
    (lambda: BOUNDARY.calibrate(PARAMS, [[1.0], [2.0, 3.0]]), "is no array of real numbers"),
    (lambda: BOUNDARY.calibrate(PARAMS, np.eye(7), "x"), "sensitivity: 'x' is no array: could not"),
    (lambda: BOUNDARY.receive(PARAMS["decoder"], X, "int32"), "dtype='int32' is no floating-point"),
    (lambda: make_mesh(stage=2.5), "make_mesh: stage=2.5 must be of type int"),
    (lambda: make_mesh("2", model=None), "make_mesh: data='2' must be of type int; model=None"),
    (lambda: place({}, 2.0), "split_stages: stages=2.0 must be of type int; ranks=2.0"),
    (lambda: pipeline(microbatches=2.0), "Pipeline: microbatches=2.0 must be of type int"),
    (lambda: pipeline(mesh=None), "Pipeline: mesh=None must be of type Mesh or AbstractMesh"),
    (lambda: place(None, 2), "place: parameters have NoneType, need ['blocks', 'boundaries', 'em"),
    (lambda: unplace(PARAMS), "unplace: parameters have ['decoder', 'encoder'], need ['blocks', "),
    (lambda: pipeline(boundary="phase"), "Pipeline: boundary='phase' must be of type Boundary"),
    (lambda: create_model(["x"]), "create_model: name=['x'] must be of type str"),
    (lambda: create_model("bert_nano", stages=2.5), "create_model: stages=2.5 must be of type int"),
    (lambda: create_model("bert_nano", boundary=3), "boundary=3 must be of type Boundary or str"),
    (lambda: MODEL.cut(2.5), "split_layers: stages=2.5 must be of type int"),
    (lambda: MODEL.cut(2, "phase"), "bert_nano: boundary='phase' must be of type Boundary"),
    (lambda: MODEL.apply(None, {}), "bert_nano: parameters have NoneType, need ['blocks', 'bound"),
    (lambda: MODEL.pipeline(make_mesh(stage=2), 2.5), "Pipeline: microbatches=2.5 must be of type"),
    (
        lambda: MODEL.apply(MODEL.init(jax.random.key(0)), None),
        "bert_nano: batch=None must be of ty",
    ),
    (lambda: MODEL.calibrate(MODEL.init(jax.random.key(0))), "calibrate needs at least one batch"),
    (lambda: Encoder.of(None), "Encoder.of: loaded=None must be of type Pretrained"),
    (lambda: evaluate(None, None), "evaluate: loaded=None must be of type Pretrained"),
    (lambda: list_models(3), "list_models: pattern=3 must be of type str"),
    (lambda: load_pretrained(None), "load_pretrained: name=None must be of type str or PathLike"),
    (lambda: load_pretrained("x", stages="3"), "stages='3' must be of type int or None"),
    (lambda: load_pretrained("x", ignore="pooler.*"), "ignore='pooler.*' must be of type list or"),
    (lambda: partition(None), "partition: loaded=None must be of type Pretrained"),
    (
        lambda: calibrate(None, {}, [], "pca", key=jax.random.key(0)),
        "calibrate: model=None must be of type Model",
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_an_argument_of_another_type_is_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_numpys_numbers_are_numbers():
    made = Boundary(np.int64(64), steps=np.int32(3), budget=np.uint8(64))
    assert made == Boundary(64, steps=3, budget=64)
    assert json.loads(json.dumps(made.to_dict()))["features"] == 64
    assert Surrogate("atan", np.float32(2)) == Surrogate("atan", 2)
    assert make_mesh(np.int64(2)).shape["data"] == 2
    x = np.random.default_rng(0).standard_normal((2, 7))  # float64, which jax has not by default
    np.testing.assert_array_equal(
        BOUNDARY.apply(PARAMS, x)[0], BOUNDARY.apply(PARAMS, jnp.asarray(x))[0]
    )
