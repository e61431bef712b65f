"""Names, folders, files and Hub ids to models and back; the shipped weights in `shipped/`.

May import checkpoint, models, data, config and utils."""
