"""Where the weights of a loss network come from, and the range of images that goes with them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from losslab.networks.drawing import constructed, draw_layers
from losslab.seeds import draws_before, generator

Pair = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel of images in [0, 1]: the first is taken off, then the second divides."""

INPUTS: dict[str, Pair] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's classification presets
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # images in [-1, 1]
    "raw": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # images as they are
}
"""Ranges that networks are fed, by name."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """A classifier that loss networks are cut from, without its weights.

    Args:
        library: that knows it: "torchvision" or "timm".
        name: what the library calls it.
        make: builds the whole model, with its library's own initialisation from torch's global generator.
        whole: the model on torch's meta device: names and shapes, no numbers.
        modules: kinds of modules that can't be traced and count as one layer each.
        functions: that can't be traced and count as one layer each.
        channels: of the images that it takes.
    """

    library: str
    name: str
    make: Callable[[], nn.Module]
    whole: nn.Module
    modules: tuple[type[nn.Module], ...] = ()
    functions: tuple[Callable[..., Any], ...] = ()
    channels: int = 3

    def __eq__(self, other: object) -> bool:
        """Compare by what the library calls it."""
        return isinstance(other, Architecture) and (self.library, self.name) == (other.library, other.name)

    def __hash__(self) -> int:
        """Go with `__eq__`."""
        return hash((self.library, self.name))

    def shapes(self) -> dict[str, torch.Size]:
        """Give the shape of each tensor in the whole model's state dict, by its key."""
        return {key: tensor.shape for key, tensor in self.whole.state_dict().items()}


class Weights(ABC):
    """A source of weights for a cut architecture.

    Args:
        input: what the network is fed: a name of `INPUTS`; `own`, what the weights were made for, unless a loss asks
            for another (LPIPS, what its heads were trained with); or a mapping with `mean` and `std`, a number a
            channel each, for images in [0, 1].
    """

    def __init__(self, input: str | Mapping[str, Sequence[float]]) -> None:  # noqa: A002 - the key in the YAMLs
        """Keep the range."""
        known = [*INPUTS, "own"]
        if isinstance(input, str) and input not in known:
            raise ValueError(f"input is one of {', '.join(known)}, or a mean and std, got {input!r}")
        if not isinstance(input, str):
            _check_input(input)
        self.input = input

    @abstractmethod
    def own_input(self, architecture: Architecture) -> Pair:
        """Give the mean and standard deviation that these weights were made for."""

    @abstractmethod
    def fill(self, cut: nn.Module, architecture: Architecture, step: int) -> str:
        """Give all tensors of `cut`, whose keys are some of the whole architecture's, their numbers of `step`.

        Args:
            cut: on the device that it stays on; its numbers are undefined before the first call.
            architecture: that it was cut from.
            step: of the training; weights that are not random don't depend on it.

        Returns:
            The name of the draw: encodings under two names can't be compared.
        """

    def __eq__(self, other: object) -> bool:
        """Compare by kind and arguments: equal weights fill a network with equal numbers."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Go with `__eq__`."""
        return hash(type(self))

    def draw_index(self, step: int) -> int:
        """Count the draws before `step`'s."""
        return 0

    def range(self, architecture: Architecture) -> Pair:
        """Give the mean and standard deviation of each channel, for images in [0, 1]."""
        if not isinstance(self.input, str):
            return tuple(self.input["mean"]), tuple(self.input["std"])
        return self.own_input(architecture) if self.input == "own" else INPUTS[self.input]


def _check_input(given: Mapping[str, Sequence[float]]) -> None:
    """Refuse what is no mean and deviation of three channels."""
    numbers = [list(given.get(name, [])) for name in ("mean", "std")]
    if {*given} != {"mean", "std"} or len(numbers[0]) != len(numbers[1]) or not all(one > 0 for one in numbers[1]):
        raise ValueError(f"input has a mean and a std above 0 for each channel, got {dict(given)}")


INITS = ("kaiming", "conv2d", "library")


class RandomWeights(Weights):
    """Kaiming-normal convolutions, zero biases, and first filters whose spatial mean is zero; or other random numbers.

    That last step is what makes a random VGG-16 as good a judge as a trained one: on BAPPS' `cnn` and `traditional`
    validation triplets, ariel415el/PerceptualLossExperiments measured .682 with torch's default weights, .691 with
    Kaiming's, .692 with zero means in all convolutions, and .736 with zero means in the first one alone.

    Args:
        init: "kaiming": N(0, 2 / fan in), biases zero; "conv2d": what `torch.nn.Conv2d` itself starts with; "library":
            what the architecture's own constructor starts with, which differs from one to the next.
        zero_mean: "first" convolution (the default, by the figures above), "all" or "none"; of filters of one pixel it
            would leave nothing, which is refused.
        seed: of the weights.
        redraw_every: steps between two draws; 0 keeps the first one.
        input: what the network is fed (see `Weights`); its `own` is "signed", images in [-1, 1], as the source has it.

    Source: Amir and Weiss, CVPR 2021, section 1.2; recipe as in VGGFeatures of ariel415el/PerceptualLossExperiments.
    """

    def __init__(
        self,
        init: str = "kaiming",
        zero_mean: str = "first",
        seed: int = 0,
        redraw_every: int = 0,
        input: str | Mapping[str, Sequence[float]] = "own",  # noqa: A002 - the key in the YAMLs
    ) -> None:
        """Keep the recipe."""
        super().__init__(input)
        if zero_mean not in ("first", "all", "none"):
            raise ValueError(f"zero_mean is 'first', 'all' or 'none', got {zero_mean!r}")
        if init not in INITS:
            raise ValueError(f"init is one of {', '.join(INITS)}, got {init!r}")
        self.init, self.zero_mean, self.seed, self.redraw_every = init, zero_mean, seed, redraw_every

    def own_input(self, architecture: Architecture) -> Pair:
        """Give the range of the source's recipe."""
        return INPUTS["signed"]

    def draw_index(self, step: int) -> int:
        """Count the draws before `step`'s."""
        return draws_before(step, self.redraw_every)

    @torch.no_grad()
    def fill(self, cut: nn.Module, architecture: Architecture, step: int) -> str:
        """Give all layers of `cut` the weights of `step`, a function of seed and step alone; name the draw.

        Normalisation layers start as torch starts them: weight one, bias zero, and statistics of N(0, 1). Others that
        are not drawn, such as scales of channels, have the constant that the library's constructor gives them.

        Raises:
            ValueError: a layer for which the constructor draws what the recipe does not know, or filters of one pixel,
                of which their mean would leave nothing.
        """
        index = self.draw_index(step)
        random = generator(self.seed, index)
        if self.init == "library":
            made = constructed(architecture.make, random.initial_seed())
            for key, tensor in cut.state_dict().items():
                if key in made:
                    tensor.copy_(made[key])
        else:
            draw_layers(cut, architecture.whole, architecture.make, self.init, random)
        kinds = dict(architecture.whole.named_modules())  # tracing takes some apart
        convolutions = [
            (name, layer) for name, layer in cut.named_modules() if isinstance(kinds.get(name, layer), nn.Conv2d)
        ]
        for name, layer in convolutions[: {"first": 1, "none": 0}.get(self.zero_mean)]:
            weight = layer.get_parameter("weight")
            if weight[0, 0].numel() == 1:
                raise ValueError(
                    f"weights.zero_mean={self.zero_mean} leaves nothing of filters of one pixel, which {name} of "
                    f"{architecture.name} has: give weights.zero_mean=none"
                )
            weight -= weight.mean(dim=(-2, -1), keepdim=True)
        return f"{self.init}, {self.zero_mean} filters of zero mean, seed {self.seed}, draw {index}"
