"""What can take the place of a network's max pooling."""

import torch
from kornia.filters import max_blur_pool2d
from torch import Tensor, nn
from torch.nn import functional

POOLINGS = ("max", "average", "blur", "l2")

LEAST = 1e-12
"""What is added under the root of `L2Pool`: L2pooling of dingkeyan93/DISTS."""


def pooled(layer: nn.MaxPool2d, pooling: str) -> nn.Module:
    """Give what takes the place of a max pooling.

    Args:
        layer: the max pooling.
        pooling: "average" over its window, "blur" or "l2".
    """
    if pooling == "average":
        return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    return {"blur": MaxBlurPool, "l2": L2Pool}[pooling](layer)


class MaxBlurPool(nn.Module):
    """A maximum over each place's window, blurred by a binomial of three places before it is thinned out.

    Args:
        pool: whose window and stride it takes over.

    Source: Zhang, "Making convolutional networks shift-invariant again", ICML 2019; kornia computes it.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        """Keep the window; the binomial is no weight of the network, so it is none of its buffers."""
        super().__init__()
        self.size, self.stride = int(str(pool.kernel_size)), int(str(pool.stride))

    def forward(self, features: Tensor) -> Tensor:
        """Pool features (N, C, h, w)."""
        return max_blur_pool2d(features, 3, stride=self.stride, max_pool_size=self.size)


class L2Pool(nn.Module):
    """The root of the mean square around each place, weighed by a binomial of three places.

    Args:
        pool: whose stride it takes over.

    Source: Ding et al., "Image quality assessment: unifying structure and texture similarity", TPAMI 2020, equation 2,
        after Hénaff and Simoncelli, ICLR 2016; class L2pooling of dingkeyan93/DISTS.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        """Keep the stride."""
        super().__init__()
        self.stride = int(str(pool.stride))

    def forward(self, features: Tensor) -> Tensor:
        """Pool features (N, C, h, w); there are zeros beyond the border."""
        binomial = torch.tensor([0.25, 0.5, 0.25], dtype=features.dtype, device=features.device)
        kernel = (binomial[:, None] * binomial).expand(features.shape[1], 1, 3, 3)
        squares = functional.conv2d(features.square(), kernel, stride=self.stride, padding=1, groups=features.shape[1])
        return (squares + LEAST).sqrt()
