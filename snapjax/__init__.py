"""snapjax: learned sparse spikes on the boundaries between devices, in JAX.

`snapjax` holds what crosses a device boundary and what it costs; models, data and training live
in `zoo`.
"""
