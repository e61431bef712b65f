"""Arithmetic of complex numbers, counted as the real arithmetic that it takes.

| of complex numbers | real operations |
|---|---|
| multiply-accumulate | 4 multiply-accumulates |
| multiplication | 4 multiplications, 2 additions |
| addition | 2 additions |
| division | 6 multiplications, 3 additions, 2 divisions: by the conjugate |
| comparison, selection | 2 of them |
| exponential | an exponential, a sine, a cosine; 2 multiplications |
| absolute value | 2 multiplications, an addition, a root; the sign is 2 divisions by it |
| another function | 4 real functions, 4 multiplications |

A matmul with one real operand takes half. A real or imaginary part is a copy, and a conjugate one
negation.
"""

from typing import Any

import jax.numpy as jnp

_PARTS = {
    "mac": {"mac": 4},
    "multiply": {"multiply": 4, "add": 2},
    "add": {"add": 2},
    "divide": {"multiply": 6, "add": 3, "divide": 2},
    "compare": {"compare": 2},
    "transcendental": {"transcendental": 4, "multiply": 4},
    "other": {"other": 2},
}
_OF_PRIMITIVE = {
    "exp": {"transcendental": 3, "multiply": 2},
    "abs": {"multiply": 2, "add": 1, "transcendental": 1},
    "sign": {"multiply": 2, "add": 1, "transcendental": 1, "divide": 2},
    **{name: {"other": 1} for name in ("real", "imag", "complex", "conj")},
}


def is_complex(value: Any) -> bool:
    """Whether a variable, or what a reference holds, is of complex numbers."""
    aval = getattr(value.aval, "inner_aval", value.aval)
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.complexfloating)


def parts(primitive: str, kind: str, real_operand: bool = False) -> dict[str, int]:
    """kind -> real operations of this kind that one complex operation takes.

    Args:
      primitive: JAX's name of the operation.
      kind: of the complex operation, one of `snapjax.cost.counts.KINDS`.
      real_operand: one of the operands is of real numbers.
    """
    if kind == "mac" and real_operand:
        return {"mac": 2}
    return _OF_PRIMITIVE.get(primitive, _PARTS.get(kind, {kind: 1}))
