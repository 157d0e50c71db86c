"""PatchSWD against the sliced Wasserstein distance of POT, with our directions passed in."""

from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

from losslab.losses.swd import PatchSWD


def patches(image: Tensor, size: int, stride: int, *, remove_mean: bool) -> "np.ndarray[Any, Any]":
    """Cut a (3, H, W) image in [0, 1] into its patches in [-1, 1] by loops, (patches, values)."""
    _, height, width = image.shape
    found = []
    for row in range(0, height - size + 1, stride):
        for column in range(0, width - size + 1, stride):
            patch = 2 * image[:, row : row + size, column : column + size] - 1
            if remove_mean:
                patch = patch - patch.mean(dim=(1, 2), keepdim=True)
            found.append(patch.flatten().numpy())
    return np.stack(found)


@pytest.mark.parametrize("remove_mean", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (7, 3)])
@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
def test_is_the_distance_of_pot(norm: str, power: int, size: int, stride: int, remove_mean: bool) -> None:
    """W1, and W2 squared, of the same patches and directions: to 1e-10, or 1e-7 if 32-bit filters lost a mean."""
    x, y = torch.rand(2, 3, 14, 17, dtype=torch.float64), torch.rand(2, 3, 14, 17, dtype=torch.float64)
    options = {"norm": norm, "directions": 12, "seed": 3}
    found = PatchSWD(size, stride, **options, remove_mean=remove_mean).double()(x, y)  # type: ignore[arg-type]
    whole = PatchSWD(size, stride, **options).double()  # type: ignore[arg-type]
    directions = (whole.filters / 2).flatten(1).T.numpy()
    for i in range(2):
        p, q = (patches(image[i], size, stride, remove_mean=remove_mean) for image in (x, y))
        # POT takes the p-th root of the mean over directions of W_p^p.
        expected = ot.sliced_wasserstein_distance(p, q, projections=directions, p=power) ** power
        assert float(found[i]) == pytest.approx(float(expected), abs=1e-10 if not remove_mean else 1e-7)
