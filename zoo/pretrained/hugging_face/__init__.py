"""Weights in the layout of Hugging Face transformers: in, strictly; and out, for others to load.

- `folder.py` reads a model's folder, `export.py` writes one.
- `sentence.py`: what sentence-transformers adds to a folder. `images.py`, `tokens.py`: how inputs
  are prepared.
- `tensors.py`: the safetensors files. `hub.py`: folders by Hub id. `known.py`: weights by name.

The config is read field by field by `zoo.models.config_map`, and tensors become parameters by
`zoo.models.weight_map`; what is particular to a family is in its `weights.py`.

May import models, config and utils."""
