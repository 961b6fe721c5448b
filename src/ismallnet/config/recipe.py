"""Recipes: everything that decides a training run, as frozen dataclasses with one set of defaults.

A recipe comes from a YAML file that names only what differs from the defaults below; it is stored as JSON
beside the weights it made, and comes back equal.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

_Value = bool | int | float | str | None
"""Of an option. Not `Any`: there jsonargparse makes an object of whatever class the file names."""
_MAY_CHANGE = ("max_minutes", "save_every", "save_minutes", "log_every", "validate_every")
"""Fields of `training` that do not decide the weights."""
_PLACE = ("accelerator", "devices", "nodes")
"""Those that say where a run is made: they decide no more than its rounding."""


def require(ok: bool, key: str, got: object, accepted: str) -> None:
    """Refuse a value.

    Raises:
        ValueError: `ok` is false; the text has the key, the value and what is accepted.
    """
    if not ok:
        raise ValueError(f"{key}: got {got!r}, accepted is {accepted}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network: a name of `ismallnet.models.list_models()` and the options of its constructor."""

    name: str = "ismallnet-s"
    options: dict[str, _Value | list[_Value]] = field(default_factory=dict)
    weights: str | None = None
    """Weights to start from, of a network of the same name and options: the folder of a run or a model, or a
    name with bundled weights. None: random ones."""


@dataclass(frozen=True, kw_only=True)
class MaskOffset:
    """Masks of some sizes lie beside their targets, as those of NUDT-SIRST do, so images have an orientation.

    Mirrored and turned, their masks would lie on another side, and none could be learnt. So these masks are
    put back on their side there, and nothing is rotated by other angles.
    """

    least: int
    """Least area of the masks that lie beside their targets, in pixels."""
    most: int
    """Largest area."""
    dx: float
    """Centre of the mask minus centre of the target, in pixels; positive: the mask lies to the right."""
    dy: float
    """Likewise; positive: the mask lies below."""


@dataclass(frozen=True, kw_only=True)
class TrainSet:
    """One data set to train on."""

    name: str
    """As `ismallnet.data.load` takes it."""
    weight: float = 1.0
    """How often an epoch shows each of its images; 2.5 is twice all and once a random half."""
    mask_offset: MaskOffset | None = None
    """Where its masks lie beside their targets, on which side; `ismallnet data check` says it."""

    def __post_init__(self) -> None:
        require(self.weight > 0, "data.sets.weight", self.weight, "a positive number")
        if (off := self.mask_offset) is not None:
            areas = off.least, off.most
            require(1 <= off.least <= off.most, "mask_offset.least, most", areas, "areas, 1 <= least <= most")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images are trained on and which judge the run."""

    root: str = "data"
    """The folder that holds the data sets' folders."""
    sets: tuple[TrainSet, ...] = (TrainSet(name="NUAA-SIRST"), TrainSet(name="NUDT-SIRST"))
    fold: int | None = None
    """None: train on the whole train lists, no validation. 0 to 4: that fold of each train list validates."""

    def __post_init__(self) -> None:
        require(len(self.sets) > 0, "data.sets", self.sets, "at least one data set")
        require(self.fold is None or 0 <= self.fold < 5, "data.fold", self.fold, "null or 0 to 4")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a batch is cut from the images; see `ismallnet.data.augment` for what each number does."""

    mode: Literal["crop", "paper"] = "crop"
    """`crop`: squares at about native scale, by the fields below. `paper`: as the official code."""
    targets: float = 0.75
    """Probability that a crop is cut around a target; otherwise anywhere."""
    symmetry: bool = True
    """Flips and quarter turns, all eight equally often."""
    warp: float = 0.5
    """Probability that a crop is resampled (rotated, scaled, stretched). The rest keep their pixels."""
    rotation: float = 180.0
    """Largest angle of a warp, in degrees."""
    scale: float = 1.5
    """Largest magnification of a warp, and one over the smallest; log-uniform."""
    aspect: float = 1.2
    """Largest ratio between the magnifications along the two axes; log-uniform."""
    soft_mask: bool = False
    """Keep resampled masks in [0, 1] instead of cutting them at one half."""
    intensity: float = 0.8
    """Probability that a crop's grey levels are altered by the fields below."""
    gain: float = 1.5
    """Largest factor on the contrast around the image's mean, and one over the smallest; log-uniform."""
    offset: float = 0.15
    """Largest shift of all grey levels, in units of the full range."""
    gamma: float = 1.4
    """Largest exponent, and one over the smallest; log-uniform."""
    stretch: float = 0.3
    """Probability of a stretch towards the image's 0.1 and 99.9 percentiles, as 16-bit images are read."""
    noise: float = 0.03
    """Largest standard deviation of Gaussian noise, in units of the full range."""
    blur: float = 0.1
    """Probability of a 3×3 binomial blur."""
    blank: float = 0.02
    """Probability that a crop becomes a flat field with that noise and no target, as a capped lens gives."""
    invert: float = 0.0
    """Probability that dark and bright are swapped."""
    clutter: float = 0.0
    """Probability that another image's background, its targets painted over, is added to a crop, so that no
    background comes back as it was."""
    clutter_strength: float = 0.5
    """Largest standard deviation of what is added, in those of the crop; never more than it has itself."""
    paste: float = 0.0
    """Probability that a target of the run's images is to be copied into a crop of at least 32 pixels, so
    that a background does not say whether there is one. All are equally likely, up to 26 pixels wide; turned
    as `symmetry` says, never resampled, the contrast changed up to `gain`. A copy that would not stand out
    or would touch a target is left out. Not with other labels than `target`: those are of whole images."""

    def __post_init__(self) -> None:
        chances = ("targets", "warp", "intensity", "stretch", "blur", "blank", "invert", "clutter", "paste")
        for name in chances:
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name}", value, "a probability, 0 to 1")
        for name in ("scale", "aspect", "gain", "gamma"):
            value = getattr(self, name)
            require(value >= 1, f"augment.{name}", value, "a number of at least 1 (1: off)")
        for name in ("rotation", "offset", "noise", "clutter_strength"):
            value = getattr(self, name)
            require(value >= 0, f"augment.{name}", value, "a number of at least 0 (0: off)")


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is trained, by which losses; see `ismallnet.objectives`. Each number is of the one it names."""

    name: Literal["supervised", "adversarial", "two-stage"] = "supervised"
    """`supervised`: the network by the section `loss`. `adversarial`: MDvsFA's two generators against a
    discriminator. `two-stage`: first a classifier of masks, then, by it, the network (TBC-Net)."""
    lambda1: float = 100.0
    """Adversarial: weight of missed targets in the first generator's fit, where false alarms have 1."""
    lambda2: float = 1.0
    """Adversarial: weight of false alarms in the second's, where missed targets have 1. 1 in the TensorFlow
    release, 10 in the PyTorch one."""
    fit: float = 100.0
    """Adversarial: weight of either fit in its generator's loss."""
    adversarial: float = 10.0
    """Adversarial: weight of being taken for the truth by the discriminator."""
    consistency: float = 1.0
    """Adversarial: weight of the two maps' distance in the discriminator's features."""
    discriminator_lr: float = 0.1
    """Adversarial: the discriminator's learning rate as a factor on `optimizer.lr`."""
    first_stage: float = 0.1
    """Two-stage: share of the steps that train the classifier; the others train the network."""
    background: float = 1.0
    """Two-stage: weight of the mean response off target."""
    semantic: float = 0.1
    """Two-stage: weight of the classifier's cross-entropy on the network's score map."""
    classifier_lr: float = 1.0
    """Two-stage: the classifier's learning rate as a factor on `optimizer.lr`."""

    def __post_init__(self) -> None:
        weights = ("lambda1", "lambda2", "fit", "adversarial", "consistency", "background", "semantic")
        for name in weights:
            value = getattr(self, name)
            require(value >= 0, f"objective.{name}", value, "a number of at least 0 (0: off)")
        for name in ("discriminator_lr", "classifier_lr"):
            value = getattr(self, name)
            require(value > 0, f"objective.{name}", value, "a positive number")
        value = self.first_stage
        require(0 < value < 1, "objective.first_stage", value, "a fraction above 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The arguments of `ismallnet.losses.LabelDecouplingLoss`, which explains them; supervised only."""

    target: str = "bce+iou"
    streams: str = "bce+iou"
    interior_weight: float = 1.0
    boundary_weight: float = 1.0
    auxiliary_weight: float = 1.0
    per_sample: bool = True
    smooth: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How gradients become steps."""

    name: Literal["sgd", "adagrad", "adamw", "muon"] = "adamw"
    """`sgd` has Nesterov momentum. `adagrad` divides by the root of all squared gradients so far. `muon`
    orthogonalises the convolutions' steps, AdamW does the rest."""
    lr: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """`sgd`, `adagrad`: on every parameter, as the official codes; the others: not on norms and biases."""
    momentum: float = 0.9
    """`sgd` and `muon`: of the velocity. `adamw`: its first beta."""
    beta2: float = 0.99
    """`adamw` and `muon`: decay of the squared gradients."""
    clip: float = 1.0
    """Largest norm of all gradients together; 0: no clipping."""

    def __post_init__(self) -> None:
        require(self.lr > 0, "optimizer.lr", self.lr, "a positive number")
        for name in ("momentum", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "0 to below 1")
        for name in ("weight_decay", "clip"):
            value = getattr(self, name)
            require(value >= 0, f"optimizer.{name}", value, "a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over the run, as a factor on its peak."""

    name: Literal["cosine", "linear", "triangle", "thirds", "constant"] = "cosine"
    """`triangle`: the official code's, by epochs up to the middle and down again. Others: warm-up first.
    `thirds`: a fifth after each third of the run, as MDvsFA's PyTorch release means it."""
    warmup: float = 0.03
    """Fraction of the steps over which the rate rises from 0; not for `triangle`."""

    def __post_init__(self) -> None:
        require(0 <= self.warmup < 1, "schedule.warmup", self.warmup, "a fraction, 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the run with its own crop and batch size."""

    sizes: tuple[int, ...] = (128,)
    """Sides of the square crops in pixels; each step draws one."""
    batch: int = 32
    """Images a step, over all devices together."""
    fraction: float = 1.0
    """Share of the run's steps; the stages' shares are divided by their sum."""
    batch_norm: Literal["live", "frozen"] = "live"
    """`live`: normalise by the batch, and average its statistics. `frozen`: by the averages, as in use; they
    stay as they are. Crops around targets have other statistics than whole images, so weights that end with
    `frozen` fit what they are used with."""

    def __post_init__(self) -> None:
        sides_fit = bool(self.sizes) and min(self.sizes) >= 16
        require(sides_fit, "training.stages.sizes", self.sizes, "sides of at least 16")
        require(self.batch >= 1, "training.stages.batch", self.batch, "at least 1")
        require(self.fraction > 0, "training.stages.fraction", self.fraction, "a positive number")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Length, stages, precision, devices, and when to look at the result."""

    steps: int | None = None
    epochs: float | None = None
    """Exactly one of `steps` and `epochs` (passes over the train sets by their weights)."""
    stages: tuple[Stage, ...] = (Stage(),)
    seed: int = 0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """`auto`: bf16 where the device computes in it, else float32. A CPU that only emulates bf16 takes many
    times as long as in float32. Head and loss are in float32 either way. A run keeps what it began with."""
    channels_last: bool = True
    compile: bool = False
    """`torch.compile`: about a minute to start, then faster steps."""
    ema: float = 0.998
    """Decay of the average of weights and batch statistics that becomes the result; 0: the last weights."""
    validate_every: int = 500
    """Steps between validations, where `data.fold` is set; the last step is always one."""
    save_every: int = 500
    """Steps between checkpoints; the last step always makes one."""
    save_minutes: float = 10.0
    """A checkpoint is made after this long without one, too."""
    max_minutes: float | None = None
    """Stop with a checkpoint after this long; `--resume` goes on. The schedule does not shrink."""
    log_every: int = 50
    """Steps between rows of `history.csv`."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    """Devices a node; torchrun's own number goes before this."""
    nodes: int = 1

    def __post_init__(self) -> None:
        given = (self.steps is not None) + (self.epochs is not None)
        require(given <= 1, "training", "both steps and epochs", "one of them")
        for name in ("steps", "epochs", "max_minutes"):
            value = getattr(self, name)
            require(value is None or value > 0, f"training.{name}", value, "a positive number")
        for name in ("validate_every", "save_every", "save_minutes", "log_every", "devices", "nodes"):
            value = getattr(self, name)
            require(value > 0, f"training.{name}", value, "a positive number")
        require(len(self.stages) > 0, "training.stages", self.stages, "at least one stage")
        require(0 <= self.ema < 1, "training.ema", self.ema, "0 to below 1")
        require(self.seed >= 0, "training.seed", self.seed, "a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One reproducible training run."""

    model: Model = Model()
    data: Data = Data()
    labels: Literal["official", "ldf", "target"] = "target"
    """How masks become interior and boundary maps; see `ismallnet.labels`."""
    augment: Augment = Augment()
    objective: Objective = Objective()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()

    def __post_init__(self) -> None:
        require(
            self.augment.paste == 0 or self.labels == "target",
            "augment.paste",
            self.augment.paste,
            f"0 with labels {self.labels}, which depend on the whole image: a copied target has none",
        )


def decisive(recipe: Recipe, *, anywhere: bool = False) -> Recipe:
    """The recipe with defaults in place of all that does not decide the weights, where the data are among it.

    Args:
        recipe: Any.
        anywhere: On whatever device, too.
    """
    usual = Training()
    names = (*_MAY_CHANGE, *_PLACE) if anywhere else _MAY_CHANGE
    training = dataclasses.replace(recipe.training, **{name: getattr(usual, name) for name in names})
    data = dataclasses.replace(recipe.data, root=Data().root)
    return dataclasses.replace(recipe, data=data, training=training)
