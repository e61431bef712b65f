"""Multiply-accumulates of matmuls and convolutions, from an equation's shapes."""

import math
from typing import Any

import numpy as np

from snapjax.cost.count._jax import size_of


def dot_macs(equation: Any) -> int:
    """Elements of the result times the length of what is contracted."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return size_of(equation.outvars[0].aval) * math.prod(left[i] for i in contracted)


def ragged_dot_macs(equation: Any) -> int:
    """Each row (or column) belongs to one group and meets that group's matrix alone."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (_, contracted), (_, batch) = numbers.dot_dimension_numbers
    groups = tuple(numbers.rhs_group_dimensions)
    right = equation.invars[1].aval.shape
    free = [i for i in range(len(right)) if i not in (*contracted, *batch, *groups)]
    return size_of(equation.invars[0].aval) * math.prod(right[i] for i in free)


def conv_macs(equation: Any) -> int:
    """Elements of the result times the taps of a kernel that belong to each.

    Padding counts as if it were data, which is how published figures count, also the padding that
    the gradient of a convolution without any has. The zeros that a transposed convolution puts
    between its inputs do not count, as in the gradient of a strided one.
    """
    params = equation.params
    numbers = params["dimension_numbers"]
    result = equation.outvars[0].aval.shape
    kernel = equation.invars[1].aval.shape
    features = kernel[numbers.rhs_spec[1]]  # input features of a group
    spatial = math.prod(
        taps(result[out], kernel[tap], stride, low, inner, outer)
        for out, tap, stride, (low, _), inner, outer in zip(
            numbers.out_spec[2:],
            numbers.rhs_spec[2:],
            params["window_strides"],
            params["padding"],
            params["rhs_dilation"],
            params["lhs_dilation"],
            strict=True,
        )
    )
    batch, channels = (result[i] for i in numbers.out_spec[:2])
    return batch * channels * features * spatial


def taps(size: int, kernel: int, stride: int, low: int, inner: int, outer: int) -> int:
    """Pairs (output, tap) along one dimension that do not fall between two inputs."""
    if outer == 1:
        return size * kernel
    place = stride * np.arange(size)[:, None] + inner * np.arange(kernel)[None] - low
    return int((place % outer == 0).sum())
