"""What a run trains, and by which losses: supervised, adversarial, in two stages. The one loop calls these.

An objective owns the network and whatever is trained beside it, in parts that each have their own optimiser.
A step is a sequence of turns, a generator: it yields which part is to be stepped and by which loss, and goes
on when that part has been, so that the next turn sees the stepped weights.

Deep supervision needs no objective of its own: `Logits.auxiliary` and the weight `loss.auxiliary_weight`.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ismallnet.losses import (
    LabelDecouplingLoss,
    false_alarms,
    missed,
    off_target,
    sigmoid_on_softmax,
    ssim,
)
from ismallnet.models.mdvsfa import Discriminator, MDvsFA, mean_logits
from ismallnet.models.tbcnet import Classifier
from ismallnet.targets import label

if TYPE_CHECKING:
    from ismallnet.config import Recipe, Stage
    from ismallnet.data.augment import Batch


class Turn(NamedTuple):
    """One part's move within a step."""

    part: str
    """The part that the loss is for: its gradients are cleared, made, clipped, and its optimiser stepped."""
    loss: Tensor
    """A scalar."""
    logits: Tensor | None = None
    """The network's prediction (B, 1, H, W) where the turn has one, for the history."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A module that is trained, as its objective uses it: called, or held fixed."""

    module: nn.Module
    """The module itself, whose weights are stepped."""
    model: nn.Module
    """The same as the devices run it (autocast, DDP); on one device it may be the module itself."""
    unsynced: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Makes a context in which `model` runs without a backward pass being expected by the other processes."""

    def __call__(self, *inputs: Tensor) -> Any:
        """Run it in the mode it is in, gradients reaching its weights: once, in the part's own turn."""
        return self.model(*inputs)

    def fixed(self, *inputs: Tensor) -> Any:
        """Run it in evaluation mode, gradients reaching the inputs only: anywhere, any number of times."""
        with _held(self.module), self.unsynced():
            return self.model(*inputs)


class Objective(nn.Module, ABC):
    """What is trained; as a module it holds the weights of all of it, for the state to go on from.

    Args:
        network: What is averaged, validated and saved. Anything else lives in training only.
        recipe: The run's.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.settings = recipe.objective

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules that have an optimiser each, by name. Every weight to be trained is in one."""
        return {"network": self.network}

    def factor(self, part: str) -> float:  # noqa: ARG002
        """Return the part's learning rate as a factor on the recipe's."""
        return 1.0

    @abstractmethod
    def turns(self, parts: Mapping[str, Part], batch: Batch, done: float) -> Iterator[Turn]:
        """Make a step's losses, one after another.

        Args:
            parts: Those of `parts()`, in training mode.
            batch: This process's part of the batch.
            done: Share of the run's steps that are done, 0 to below 1.
        """


class Supervised(Objective):
    """The network by `ismallnet.losses.LabelDecouplingLoss`, one turn a step."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        self.criterion = LabelDecouplingLoss(**dataclasses.asdict(recipe.loss))

    def turns(self, parts: Mapping[str, Part], batch: Batch, done: float) -> Iterator[Turn]:  # noqa: ARG002
        """See `Objective.turns`."""
        logits = parts["network"](batch.image)
        loss = self.criterion(logits, batch.target, batch.interior, batch.boundary)
        yield Turn("network", loss, logits.target)


class Adversarial(Objective):
    """MDvsFA-cGAN (Wang et al., ICCV 2019): the discriminator's turn, the first generator's, the second's.

    The discriminator sees truth, first and second map as one batch, and is told which are which. A
    generator's loss is ``fit · F + adversarial · A + consistency · C``: F weighs missed targets and false
    alarms, A asks that the discriminator take the map for the truth, C is the mean squared distance of both
    generators' maps in the discriminator's features. Whoever is not trained in a turn is in evaluation mode,
    as in the PyTorch release; in the TensorFlow original batch norms always take the batch's statistics.

    Raises:
        ValueError: Another network than `mdvsfa`, or crops that the discriminator does not take.
    """

    network: MDvsFA

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        if not isinstance(network, MDvsFA):
            raise ValueError(
                f"the objective adversarial trains mdvsfa, got {recipe.model.name}; "
                "set model.name to mdvsfa or objective.name to supervised"
            )
        super().__init__(network, recipe)
        sizes = {size for stage in recipe.training.stages for size in stage.sizes}
        side = Discriminator.side
        if sizes != {side}:
            raise ValueError(
                f"training.stages.sizes: got {sorted(sizes)}; the discriminator takes crops of "
                f"{side}×{side}, so set sizes to [{side}] in every stage"
            )
        self.discriminator = Discriminator()

    def parts(self) -> dict[str, nn.Module]:
        """See `Objective.parts`."""
        generators = {"miss": self.network.miss, "false_alarm": self.network.false_alarm}
        return {"discriminator": self.discriminator, **generators}

    def factor(self, part: str) -> float:
        """See `Objective.factor`."""
        return self.settings.discriminator_lr if part == "discriminator" else 1.0

    def turns(self, parts: Mapping[str, Part], batch: Batch, done: float) -> Iterator[Turn]:  # noqa: ARG002
        """See `Objective.turns`."""
        image, truth = self.network.prepare(batch.image), batch.target
        judge, miss, false_alarm = parts["discriminator"], parts["miss"], parts["false_alarm"]
        with torch.no_grad():
            first, second = miss.fixed(image).clamp(0, 1), false_alarm.fixed(image).clamp(0, 1)
        logits = mean_logits(first, second)
        maps = torch.cat([truth, first, second])
        kinds = judge(image.repeat(3, 1, 1, 1), maps).kinds
        true_kinds = torch.arange(3, device=image.device).repeat_interleave(len(image))
        told_apart = 3 * sigmoid_on_softmax(kinds, true_kinds)  # the sum of the means over each kind
        yield Turn("discriminator", told_apart, logits)

        first = miss(image).clamp(0, 1)
        fit = self.settings.lambda1 * missed(first, truth) + false_alarms(first, truth)
        yield Turn("miss", self._generator_loss(judge, image, first, second, fit))

        with torch.no_grad():
            first = miss.fixed(image).clamp(0, 1)
        second = false_alarm(image).clamp(0, 1)
        fit = missed(second, truth) + self.settings.lambda2 * false_alarms(second, truth)
        yield Turn("false_alarm", self._generator_loss(judge, image, second, first, fit))

    def _generator_loss(self, judge: Part, image: Tensor, mine: Tensor, other: Tensor, fit: Tensor) -> Tensor:
        """The loss of the generator whose map is `mine`."""
        features, kinds = judge.fixed(image.repeat(2, 1, 1, 1), torch.cat([mine, other]))
        real = torch.zeros(len(image), dtype=torch.int64, device=image.device)
        adversarial = sigmoid_on_softmax(kinds[: len(image)], real)
        consistency = F.mse_loss(*features.chunk(2))
        settings = self.settings
        return settings.fit * fit + settings.adversarial * adversarial + settings.consistency * consistency


class TwoStage(Objective):
    """TBC-Net (Zhao et al., arXiv 2001.05852): a classifier of masks first, then a network under its eyes.

    In the first stage the classifier learns to count the targets in masks; in the second, frozen, it counts
    those in the network's score maps. The network's loss is
    ``L1 + (1 - SSIM) + background · B + semantic · CE``: B is the mean response off target, CE the
    classifier's cross-entropy on the score map, the class being the count in the true mask. The terms are the
    paper's; weights, classes and the first stage's masks are ours, since none is known. Any network with one
    head will do.

    Raises:
        ValueError: A network that answers with other maps too, which no term of the loss would train.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        if others := _other_maps(network):
            raise ValueError(
                f"the objective two-stage trains the target's map alone, {recipe.model.name} answers with "
                f"{', '.join(others)} too; leave these out by its options (such as streams: none, "
                "deep: false) or set objective.name to supervised"
            )
        super().__init__(network, recipe)
        self.classifier = Classifier()

    def parts(self) -> dict[str, nn.Module]:
        """See `Objective.parts`."""
        return {"classifier": self.classifier, "network": self.network}

    def factor(self, part: str) -> float:
        """See `Objective.factor`."""
        return self.settings.classifier_lr if part == "classifier" else 1.0

    def turns(self, parts: Mapping[str, Part], batch: Batch, done: float) -> Iterator[Turn]:
        """See `Objective.turns`."""
        classifier, truth, settings = parts["classifier"], batch.target, self.settings
        if done < settings.first_stage:
            masks, classes = masks_to_count(truth)
            yield Turn("classifier", F.cross_entropy(classifier(masks), classes))
            return
        logits = parts["network"](batch.image).target
        score = torch.sigmoid(logits)
        fit = F.l1_loss(score, truth) + 1 - ssim(score, truth)
        semantic = F.cross_entropy(classifier.fixed(score), count_classes(truth))
        loss = fit + settings.background * off_target(score, truth) + settings.semantic * semantic
        yield Turn("network", loss, logits)


OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "adversarial": Adversarial,
    "two-stage": TwoStage,
}
"""By the names of `objective.name` in a recipe."""


def make_objective(network: nn.Module, recipe: Recipe, *, shares: int = 1) -> Objective:
    """Build the objective of a recipe for a network, what is trained beside it with random weights.

    Args:
        network: To be trained.
        recipe: The run's.
        shares: Number of equal parts of a batch that are normalised each by its own statistics.

    Raises:
        ValueError: The objective cannot train this network, or a stage's crops or batch are too small for it.
    """
    objective = OBJECTIVES[recipe.objective.name](network, recipe)
    for stage in recipe.training.stages:
        _check_crops(network, recipe.model.name, stage)
        _check_batch(network, recipe.model.name, stage, shares)
    return objective


def _check_crops(network: nn.Module, name: str, stage: Stage) -> None:
    """Refuse crops that the network would fill up with mirror images of themselves."""
    least = int(getattr(network, "minimum", 1))
    if min(stage.sizes) < least:
        raise ValueError(
            f"training.stages.sizes: got {list(stage.sizes)}; {name} takes crops of at least "
            f"{least}×{least}, so set sizes to {least} or more in every stage"
        )


def _check_batch(network: nn.Module, name: str, stage: Stage, shares: int) -> None:
    """Refuse a batch of which a process has too few images for the network's batch norms."""
    needed: Callable[[int], int] | None = getattr(network, "least_batch", None)
    if needed is None or stage.batch_norm == "frozen":
        return
    side = min(stage.sizes)
    least = needed(side)
    if stage.batch // shares < least:
        among = f" for {shares} processes" if shares > 1 else ""
        raise ValueError(
            f"training.stages.batch: got {stage.batch}{among}; on crops of {side}×{side} {name} needs at "
            f"least {least} images a process, so set batch to {least * shares} or more, or batch_norm to "
            "frozen in that stage"
        )


def _other_maps(network: nn.Module) -> list[str]:
    """Which maps a network answers with in training, beside the target's; a copy on the CPU is asked.

    The random numbers of the run stay as they are.
    """
    side = max(int(getattr(network, "minimum", 1)), 16)
    asked = copy.deepcopy(network).cpu().train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        logits = asked(torch.zeros(2, 1, side, side))
    maps = {"interior": logits.interior, "boundary": logits.boundary, "auxiliary": logits.auxiliary or None}
    return [name for name, value in maps.items() if value is not None]


def count_classes(masks: Tensor) -> Tensor:
    """How many targets, 8-connected at one half and above, masks (B, 1, H, W) show: (B,) int64, at most 6."""
    found = [label(mask)[0] for mask in (masks[:, 0] >= 0.5).cpu().numpy()]
    return torch.tensor(found, device=masks.device).clamp(max=Classifier.classes - 1)


def masks_to_count(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Masks for the classifier to learn from: the true ones, as many perturbed ones, and some empty ones.

    A perturbed mask is a true one joined with each of the next five of the batch half the time, so that all
    classes occur where nearly every crop has one target; then dimmed to 0.5 to 1 and laid over noise of up to
    0.1, since the classifier will see scores.

    Args:
        truth: (B, 1, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [0, 1] and (N,) int64 classes, N = 2B + max(B // 4, 1); random by torch's generator.
    """
    batch = len(truth)
    joined = truth
    for shift in range(1, 6):
        taken = torch.rand(batch, 1, 1, 1, device=truth.device) < 0.5
        joined = torch.maximum(joined, truth.roll(shift, 0) * taken)
    dimmed = joined * (0.5 + 0.5 * torch.rand(batch, 1, 1, 1, device=truth.device))
    perturbed = torch.maximum(dimmed, 0.1 * torch.rand_like(truth))
    empty = torch.zeros_like(truth[: max(batch // 4, 1)])
    classes = count_classes(torch.cat([truth, joined, empty]))
    return torch.cat([truth, perturbed, empty]), classes


@contextmanager
def _held(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients to the weights, and back."""
    trained = [part for part in module.modules() if part.training]
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part in trained:
            part.training = True
        for weight in weights:
            weight.requires_grad_(True)
