"""Model families (`bert/`, `vit/`), the cut into stages, losses, calibration, the registry.

May import data, config, utils and snapjax."""
