"""Every test sees eight fake CPU devices, strict dtypes, strict ranks, and warnings as errors."""

import gc
import os
from pathlib import Path

# Before jax is imported: the tests are about CPU devices, whatever the machine has.
os.environ["JAX_PLATFORMS"] = "cpu"
# The same programs in half the time: compiling is most of what the tests do, running them little.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
# And each of them once, small ones too: equal programs of other tests, workers and child processes
# are read back.
cache = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402 (it reads what was set above)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# Tracing allocates much that is no garbage; looking for cycles less often takes 13 % less time.
gc.set_threshold(50_000, 20, 20)
