"""Means over subsets, each way that papers take them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from losslab.metrics.arrays import Numbers, numbers, places, same_length

# Zhang et al. 2018, Table 5
GROUPS = {"distortions": ("traditional", "cnn"), "real": ("superres", "deblur", "color", "frameinterp")}
"""The two groups of the six subsets of BAPPS of which the paper gives means."""
RESERVED = frozenset({"mean", "pooled", *GROUPS})
"""Names that no subset may have."""


def by_subset(values: ArrayLike, subset: ArrayLike, subsets: Sequence[str]) -> dict[str, Numbers]:
    """Average values of triplets or pairs over each subset, over the subsets, and over all of them.

    Formula: "mean" is 1/S Σ_s m_s with m_s the mean over subset s; "pooled" is 1/T Σ_t v_t.

    Where the subsets are the six of BAPPS, there are also "distortions", the mean of the two subsets traditional and
    cnn, and "real", that of the other four; the papers' "all" is "mean".

    Args:
        values: of each triplet, (*, T).
        subset: index into `subsets`, (T,).
        subsets: names.

    Returns:
        Means by name, each (*): the subsets in their order, then the groups, then "mean" and "pooled".

    Raises:
        ValueError: an index is no subset's, a subset is empty, a name is taken, or the lengths differ.

    Source: Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a perceptual
        metric", CVPR 2018, Table 5.

    Example:
        >>> means = by_subset([1, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], ["small", "large"])
        >>> {name: float(mean) for name, mean in means.items()}
        {'small': 0.5, 'large': 0.75, 'mean': 0.625, 'pooled': 0.6666666666666666}
    """
    held, where = numbers(values, "values"), places(subset, subsets, RESERVED)
    same_length(values=held, subset=where)
    each = np.stack([held[..., where == index].mean(-1) for index in range(len(subsets))], -1)
    return named(each, held.mean(-1), subsets)


def named(each: Numbers, pooled: Numbers | np.float64, subsets: Sequence[str]) -> dict[str, Numbers]:
    """Name the means of subsets (*, S) and those over everything (*), and add the means of means."""
    found = {name: each[..., index] for index, name in enumerate(subsets)}
    if set(subsets) == {name for group in GROUPS.values() for name in group}:
        found |= {group: np.asarray(np.mean([found[name] for name in names], 0)) for group, names in GROUPS.items()}
    return found | {"mean": np.asarray(each.mean(-1)), "pooled": np.asarray(pooled)}
