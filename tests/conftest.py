"""Every test sees eight fake CPU devices, strict dtypes, strict ranks, and warnings as errors."""

import os

# Before jax is imported: the tests are about CPU devices, whatever the machine has.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
