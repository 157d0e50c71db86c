"""Where the weights of a loss network come from, and the range of images that goes with them."""

from collections.abc import Sequence

import torch
from torch import nn

from losslab.seeds import draws_before, generator


class RandomWeights:
    """Kaiming-normal convolutions, zero biases, and first filters whose spatial mean is zero.

    That last step is what makes a random VGG-16 as good a judge as a trained one: on BAPPS' `cnn` and `traditional`
    validation triplets, ariel415el/PerceptualLossExperiments measured .682 with torch's default weights, .691 with
    Kaiming's, .692 with zero means in all convolutions, and .736 with zero means in the first one alone.

    Args:
        zero_mean: "first" convolution (the default, by the figures above), "all" or "none".
        seed: of the weights.
        redraw_every: steps between two draws; 0 keeps the first one.
        mean: of each channel, taken off images in [0, 1] before the network.
        std: of each channel, which they are then divided by; .5 and .5 feed [-1, 1], as the source does.

    Source: Amir and Weiss, CVPR 2021, section 1.2; recipe as in VGGFeatures of ariel415el/PerceptualLossExperiments.
    """

    def __init__(
        self,
        zero_mean: str = "first",
        seed: int = 0,
        redraw_every: int = 0,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        """Keep the recipe."""
        if zero_mean not in ("first", "all", "none"):
            raise ValueError(f"zero_mean is 'first', 'all' or 'none', got {zero_mean!r}")
        self.zero_mean, self.seed, self.redraw_every = zero_mean, seed, redraw_every
        self.mean, self.std = tuple(mean), tuple(std)

    def draw_index(self, step: int) -> int:
        """Count the draws before `step`'s."""
        return draws_before(step, self.redraw_every)

    @torch.no_grad()
    def fill(self, module: nn.Module, step: int) -> str:
        """Give all layers of `module` the weights of `step`, a function of seed and step alone; name the draw.

        Normalisation layers start as torch starts them: weight one, bias zero, and statistics of N(0, 1).

        Raises:
            ValueError: a layer with weights of its own that the recipe does not know.
        """
        index = self.draw_index(step)
        random = generator(self.seed, index)
        first = True
        for name, layer in module.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                weight = torch.empty(layer.weight.shape)  # drawn on the CPU, so that every device sees the same
                nn.init.kaiming_normal_(weight, generator=random)
                if isinstance(layer, nn.Conv2d):
                    if self.zero_mean == "all" or (self.zero_mean == "first" and first):
                        weight -= weight.mean(dim=(-2, -1), keepdim=True)
                    first = False
                layer.weight.copy_(weight)
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
                layer.reset_parameters()
            elif [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
                raise ValueError(f"no random weights are known for {name}, a {type(layer).__name__}")
        return f"{self.zero_mean} filters of zero mean, seed {self.seed}, draw {index}"
