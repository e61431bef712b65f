"""What a run is made of, as frozen dataclasses: model, data, training, mesh, bookkeeping.

A config is plain values: it prints, compares, goes into every checkpoint as JSON and comes back
from it. Everything that can be known to be wrong without data or devices is an error here.
"""

from dataclasses import dataclass, field, fields

from snapjax.errors import unknown_name
from snapjax.neurons.surrogate import Surrogate
from zoo.config.data import DataSpec
from zoo.config.fields import normalise

PRECISIONS = ("float32", "bfloat16")
"""Of activations, over float32 weights."""
TRAINABLE = ("all", "boundaries")
CALIBRATIONS = (
    "variance",
    "variance_refit",
    "sensitivity",
    "sensitivity_refit",
    "pca",
    "pca_refit",
    "sensitivity_pca",
    "sensitivity_pca_refit",
)
"""Ways of fitting a boundary without training; `zoo.models.calibration` says what each does."""


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and what lies on its boundaries.

    Attributes:
      name: one of `zoo.models.registry.list_models()`.
      variant: "ann" or "hnn".
      stages: slices that the model is cut into; the boundaries lie between them.
      layers, width, heads, mlp_width: instead of the preset's; None keeps it.
      dropout: probability, in the embedding, attention and MLP.
      precision: "float32", or "bfloat16" activations over float32 master weights.
      code: of the boundary; None for the variant's default (float32 or phase).
      steps: spike steps at most.
      bits_per_feature: budget of a spike code or top-k.
      surrogate: gradient of the spikes, one of `snapjax.neurons.surrogate.SURROGATES`; None for the
        variant's default.
      surrogate_alpha: its inverse width; None for the surrogate's own default.
      gradient_wire: format of the gradients on the links.
      init_from: weights to start from: a name, a folder or a checkpoint, as `load_pretrained`
        takes it. Boundaries that differ are made anew and calibrated. None starts from scratch, or
        from the teacher where there is one.
      calibration: how spiking boundaries are fitted before training, one of
        `zoo.models.calibration.METHODS`; those with a rotation or refit give both ends a matrix.
    """

    name: str = "vit_nano_patch2_8"
    variant: str = "hnn"
    stages: int = 4
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    dropout: float = 0.0
    precision: str = "float32"
    code: str | None = None
    steps: int = 4
    bits_per_feature: float = 1.0
    surrogate: str | None = None
    surrogate_alpha: float | None = None
    gradient_wire: str = "float32"
    init_from: str | None = None
    calibration: str = "variance"

    def __post_init__(self) -> None:
        normalise(self, "model")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.calibration not in CALIBRATIONS:
            raise unknown_name("model.calibration", self.calibration, CALIBRATIONS)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout} must be in [0, 1)")
        if not self.bits_per_feature > 0:
            raise ValueError(f"model.bits_per_feature={self.bits_per_feature} must be positive")
        for name in ("stages", "layers", "width", "heads", "mlp_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"model.{name}={value} must be at least 1")
        self.gradient()

    def gradient(self) -> Surrogate | None:
        """The surrogate of the spikes; None for the variant's default."""
        if self.surrogate is None:
            if self.surrogate_alpha is not None:
                raise ValueError(
                    f"model.surrogate_alpha={self.surrogate_alpha} is the width of a "
                    "model.surrogate; give both"
                )
            return None
        try:
            return Surrogate(self.surrogate, self.surrogate_alpha)
        except ValueError as error:
            raise ValueError(f"model.surrogate: {error}") from error


@dataclass(frozen=True)
class TrainSpec:
    """How to train.

    Attributes:
      epochs: passes over the training split.
      batch_size: samples a step, over all devices.
      microbatches: how many the pipeline splits each device's part of the batch into; their
        gradients are accumulated.
      learning_rate: peak of AdamW's warm-up and cosine schedule.
      warmup: share of all steps spent warming up.
      weight_decay: on kernels only; norms, biases, tables, positions and boundaries have none.
      clip: largest global gradient norm.
      label_smoothing: share of the target spread over all classes, in training only.
      trainable: "all" parameters, or the "boundaries" alone.
      group_by_length: texts of like length in one batch, padded to its longest and not to
        data.sequence; a step is compiled for each length. Less is computed, but batches are less
        of a mixture: compare what is learned.
      ema: decay of the moving average of the weights that is evaluated and exported; 0 for none.
      seed: of the initial parameters, the data order, the augmentation and dropout.
    """

    epochs: int = 40
    batch_size: int = 32
    microbatches: int = 4
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.5
    clip: float = 1.0
    label_smoothing: float = 0.0
    trainable: str = "all"
    group_by_length: bool = False
    ema: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        normalise(self, "train")

        def require(holds: bool, name: str, needs: str) -> None:
            if not holds:
                raise ValueError(f"train.{name}={getattr(self, name)} must be {needs}")

        if self.trainable not in TRAINABLE:
            raise unknown_name("train.trainable", self.trainable, TRAINABLE)
        for name in ("epochs", "batch_size", "microbatches"):
            require(1 <= getattr(self, name) < 10**6, name, "at least 1 and below 1000000")
        for name in ("warmup", "label_smoothing", "ema"):
            require(0 <= getattr(self, name) < 1, name, "in [0, 1)")
        for name in ("learning_rate", "clip"):
            require(getattr(self, name) > 0, name, "positive")
        require(self.weight_decay >= 0, "weight_decay", "not negative")
        require(0 <= self.seed < 2**32, "seed", "in [0, 2**32)")


@dataclass(frozen=True)
class DistillSpec:
    """Learning from a teacher instead of labels; see `zoo.train.distillation`.

    Attributes:
      teacher: a trained model, as `load_pretrained` takes it; its dense part teaches, and gives the
        student its sizes and, unless model.init_from says otherwise, its weights. None for none.
      output: weight of the error of the output.
      states: weight of the error of the last states.
      similarity: weight of the squared error of the cosine between the two texts of a pair, of
        encoders with data.pairs.
      temperature: that softens the logits of both.
    """

    teacher: str | None = None
    output: float = 1.0
    states: float = 1.0
    similarity: float = 0.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        normalise(self, "distill")
        for name in ("output", "states", "similarity"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"distill.{name}={getattr(self, name)} must be at least 0")
        if self.output == self.states == self.similarity == 0:
            raise ValueError(
                "distill.output=0, distill.states=0 and distill.similarity=0 leave nothing to learn"
            )
        if not self.temperature > 0:
            raise ValueError(f"distill.temperature={self.temperature} must be positive")


@dataclass(frozen=True)
class MeshSpec:
    """Which devices.

    Attributes:
      data: parts that the batch is split into.
      stage: ranks that the model's stages are spread over, a divisor of model.stages; None for
        as many as there are devices for.
      fsdp: also shard parameters and optimiser state over "data", by regular-expression rules.
    """

    data: int = 1
    stage: int | None = None
    fsdp: bool = False

    def __post_init__(self) -> None:
        normalise(self, "mesh")
        for name in ("data", "stage"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"mesh.{name}={value} must be at least 1")
        if self.fsdp and self.data == 1:
            raise ValueError("mesh.fsdp=True shards over mesh.data=1, which is no sharding")


@dataclass(frozen=True)
class LogSpec:
    """Bookkeeping; nothing here changes what is computed.

    Attributes:
      every: steps between two lines of training metrics; several processes also agree on a stop
        so often only.
      evaluate: steps between two evaluations; 0 for the end of every epoch.
      save: steps between two checkpoints; 0 for the end of every epoch.
      keep: newest checkpoints that are kept, besides the best one of those whose step was evaluated
        too.
      profile: of `snapjax.cost`, a name or a file, with the peak rate of the devices, for the
        model-FLOPs utilisation; None for that of the device's kind, where one is known.
    """

    every: int = 20
    evaluate: int = 0
    save: int = 0
    keep: int = 2
    profile: str | None = None

    def __post_init__(self) -> None:
        normalise(self, "log")
        for name, least in (("every", 1), ("evaluate", 0), ("save", 0), ("keep", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"log.{name}={getattr(self, name)} must be at least {least}")


@dataclass(frozen=True)
class RunConfig:
    """A whole run. `name` is the preset's."""

    name: str
    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataSpec = field(default_factory=DataSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    mesh: MeshSpec = field(default_factory=MeshSpec)
    log: LogSpec = field(default_factory=LogSpec)
    distill: DistillSpec = field(default_factory=DistillSpec)

    def __post_init__(self) -> None:
        for entry in fields(self):
            kind = str if entry.name == "name" else entry.default_factory
            if not isinstance(getattr(self, entry.name), kind):
                raise ValueError(
                    f"RunConfig: {entry.name}={getattr(self, entry.name)!r} must be a "
                    f"{kind.__name__}"
                )
        if self.distill.teacher is None and self.data.task == "unlabelled":
            raise ValueError("data.task='unlabelled' needs distill.teacher to give the targets")
        if self.distill.teacher is not None:
            for name in ("layers", "width", "heads", "mlp_width"):
                if getattr(self.model, name) is not None:
                    raise ValueError(
                        f"model.{name}={getattr(self.model, name)}: a student has the sizes of "
                        "distill.teacher; leave it out"
                    )
            if self.train.label_smoothing:
                raise ValueError(
                    f"train.label_smoothing={self.train.label_smoothing} is for labels, but "
                    "distill.teacher gives the targets; set it to 0"
                )
        if self.distill.similarity and not self.data.pairs:
            raise ValueError(
                f"distill.similarity={self.distill.similarity} is of pairs of texts, but "
                "data.pairs=False; set data.pairs=true, and data.text_pair_column"
            )
        ranks = self.mesh.stage
        if ranks is not None and self.model.stages % ranks:
            raise ValueError(
                f"mesh.stage={ranks} must divide model.stages={self.model.stages}, so that every "
                "rank runs equally many stages"
            )
        parts = self.mesh.data * self.train.microbatches * (1 + self.data.pairs)
        two = " x 2 texts of data.pairs" if self.data.pairs else ""
        if self.train.batch_size % parts:
            raise ValueError(
                f"train.batch_size={self.train.batch_size} must be a multiple of {parts}: "
                f"mesh.data={self.mesh.data} x train.microbatches={self.train.microbatches}{two}"
            )
