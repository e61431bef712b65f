"""Models that snapjax cuts, and all that trains, saves and finds them by name.

from zoo import create_model, list_models, load_pretrained
"""

from zoo.models.registry import create_model, list_models
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.locate import list_pretrained

__all__ = ["create_model", "list_models", "list_pretrained", "load_pretrained"]
