"""Weights in the layout of Hugging Face transformers: in, strictly; and out, for others to load.

- `folder.py`: a model's folder, config and weights together.
- `sentence.py`: what sentence-transformers adds to a folder. `images.py`, `tokens.py`: how inputs
  are prepared.
- `fields.py`: the config, field by field. `table.py`: tensors and parameters, name by name.
- `tensors.py`: the safetensors files. `hub.py`: folders by Hub id.

What is particular to a family is in its own `weights.py`.
"""
