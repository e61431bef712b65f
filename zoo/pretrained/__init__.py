"""Trained models: names, folders, files and Hub ids to models and back.

- `load.py`: `load_pretrained`. `locate.py`: where a name is. `dispatch.py`: which kind that is.
- The kinds, each with its reader and writer: `model_folder.py`, `single_file.py`,
  `run_checkpoint.py`, and of others' weights `published.py` over `hugging_face/`.
- What they share: `pretrained_model.py`, `record.py`, `arrays.py`, `source.py`.
- `warm_start.py`: other boundaries on trained weights. `convert.py`, `listing.py`: other formats,
  and what a file holds.
- `shipped/`: the models in the package.

May import checkpoint, models, data, config and utils."""
