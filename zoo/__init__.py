"""Models that snapjax cuts, and all that trains, saves and finds them by name.

    from zoo import create_model, get_preset, load_pretrained, train_model

Every name of `__all__` is loaded when it is first used. `zoo.train` is the package of the trainer;
the function that trains is `train_model`.
"""

from typing import TYPE_CHECKING

from snapjax.lazy import attach

# The names again for type checkers and editors, which do not see through `attach`.
if TYPE_CHECKING:
    from zoo.config.data import DataSpec
    from zoo.config.presets import PRESETS, get_preset
    from zoo.config.specs import DistillSpec, LogSpec, MeshSpec, ModelSpec, RunConfig, TrainSpec
    from zoo.config.values import override
    from zoo.data.batches import Split
    from zoo.data.prepare import Data
    from zoo.data.sources import load as load_data
    from zoo.data.tokenizer import Vocabulary
    from zoo.embedding.encoder import Encoder
    from zoo.evaluation.inputs import spec_for
    from zoo.evaluation.score import score_any as evaluate
    from zoo.models.calibration import calibrate
    from zoo.models.model import Family as ModelFamily
    from zoo.models.model import Model
    from zoo.models.model import Result as ModelResult
    from zoo.models.registry import create_model, list_models
    from zoo.pretrained.load import load_pretrained
    from zoo.pretrained.locate import list_pretrained
    from zoo.pretrained.pretrained_model import Pretrained
    from zoo.pretrained.source import PretrainedConfig
    from zoo.pretrained.warm_start import partition
    from zoo.train.run import train as train_model
    from zoo.train.stop import StopRequest
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "zoo.models.registry": ("create_model", "list_models"),
            "zoo.models.model": ("Model", "Family as ModelFamily", "Result as ModelResult"),
            "zoo.models.calibration": ("calibrate",),
            "zoo.pretrained.locate": ("list_pretrained",),
            "zoo.pretrained.source": ("PretrainedConfig",),
            "zoo.pretrained.load": ("load_pretrained",),
            "zoo.pretrained.pretrained_model": ("Pretrained",),
            "zoo.pretrained.warm_start": ("partition",),
            "zoo.config.presets": ("PRESETS", "get_preset"),
            "zoo.config.values": ("override",),
            "zoo.config.specs": (
                "RunConfig",
                "ModelSpec",
                "TrainSpec",
                "DistillSpec",
                "MeshSpec",
                "LogSpec",
            ),
            "zoo.config.data": ("DataSpec",),
            "zoo.data.sources": ("load as load_data",),
            "zoo.data.prepare": ("Data",),
            "zoo.data.batches": ("Split",),
            "zoo.data.tokenizer": ("Vocabulary",),
            "zoo.train.run": ("train as train_model",),
            "zoo.train.stop": ("StopRequest",),
            "zoo.evaluation.score": ("score_any as evaluate",),
            "zoo.evaluation.inputs": ("spec_for",),
            "zoo.embedding.encoder": ("Encoder",),
        },
    )

__all__ = [
    "PRESETS",
    "Data",
    "DataSpec",
    "DistillSpec",
    "Encoder",
    "LogSpec",
    "MeshSpec",
    "Model",
    "ModelFamily",
    "ModelResult",
    "ModelSpec",
    "Pretrained",
    "PretrainedConfig",
    "RunConfig",
    "Split",
    "StopRequest",
    "TrainSpec",
    "Vocabulary",
    "calibrate",
    "create_model",
    "evaluate",
    "get_preset",
    "list_models",
    "list_pretrained",
    "load_data",
    "load_pretrained",
    "override",
    "partition",
    "spec_for",
    "train_model",
]
