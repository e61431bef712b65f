"""Vision transformers: `modeling.py`, and in `weights.py` those of transformers.

May import the modules of `zoo.models` beside it but the registry, which imports this."""
