"""snapjax: learned sparse spikes on the boundaries between devices, in JAX.

`snapjax` holds what crosses a device boundary and what it costs; models, data and training live
in `zoo`. Every name of `__all__` is loaded when it is first used, so `import snapjax` takes no
time and does not import jax.
"""

from typing import TYPE_CHECKING

from snapjax.lazy import attach

__version__ = "0.2.0"  # the one place; pyproject.toml reads it

# The names again for type checkers and editors, which do not see through `attach`.
if TYPE_CHECKING:
    from snapjax import cost
    from snapjax.boundary import Boundary
    from snapjax.codes.code import CODES, SPIKE_CODES, Code, make_code
    from snapjax.codes.parameters import merge_plan, split_plan
    from snapjax.codes.spike_code import SpikeCode
    from snapjax.neurons.neuron import RESETS, Neuron
    from snapjax.neurons.neuron import run as run_neuron
    from snapjax.neurons.neuron import step as step_neuron
    from snapjax.neurons.surrogate import SURROGATES, Surrogate, spike
    from snapjax.parallel.keys import PassKeys
    from snapjax.parallel.pipeline import Outputs, Pipeline
    from snapjax.parallel.sharding import (
        make_mesh,
        match_rules,
        place,
        put_placed,
        shardings,
        unplace,
    )
    from snapjax.settings import WIRES
    from snapjax.stats import BoundaryStats
    from snapjax.wire.dense import DENSE_FORMATS, GRADIENT_FORMATS
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "snapjax.boundary": ("Boundary",),
            "snapjax.settings": ("WIRES",),
            "snapjax.stats": ("BoundaryStats",),
            "snapjax.codes.code": ("CODES", "SPIKE_CODES", "Code", "make_code"),
            "snapjax.codes.spike_code": ("SpikeCode",),
            "snapjax.codes.parameters": ("split_plan", "merge_plan"),
            "snapjax.wire.dense": ("DENSE_FORMATS", "GRADIENT_FORMATS"),
            "snapjax.neurons.surrogate": ("SURROGATES", "Surrogate", "spike"),
            "snapjax.neurons.neuron": (
                "Neuron",
                "RESETS",
                "run as run_neuron",
                "step as step_neuron",
            ),
            "snapjax.parallel.pipeline": ("Pipeline", "Outputs"),
            "snapjax.parallel.keys": ("PassKeys",),
            "snapjax.parallel.sharding": (
                "make_mesh",
                "place",
                "unplace",
                "put_placed",
                "match_rules",
                "shardings",
            ),
            "snapjax": ("cost",),
        },
    )

__all__ = [
    "CODES",
    "DENSE_FORMATS",
    "GRADIENT_FORMATS",
    "RESETS",
    "SPIKE_CODES",
    "SURROGATES",
    "WIRES",
    "Boundary",
    "BoundaryStats",
    "Code",
    "Neuron",
    "Outputs",
    "PassKeys",
    "Pipeline",
    "SpikeCode",
    "Surrogate",
    "cost",
    "make_code",
    "make_mesh",
    "match_rules",
    "merge_plan",
    "place",
    "put_placed",
    "run_neuron",
    "shardings",
    "spike",
    "split_plan",
    "step_neuron",
    "unplace",
]
