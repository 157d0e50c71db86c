"""The five comparisons of the study of loss networks, by the names that it gives them."""

from collections.abc import Sequence
from typing import Any

from losslab.checks import check_switch
from losslab.comparisons.base import Comparison
from losslab.comparisons.mean import Mean
from losslab.comparisons.sort import Sort
from losslab.comparisons.spatial import Spatial
from losslab.comparisons.sum import Sum

PLAIN: dict[str, type[Spatial | Mean | Sort]] = {"spatial": Spatial, "mean": Mean, "sort": Sort}
SUMS = {"spatial_mean": ("spatial", "mean"), "spatial_sort": ("spatial", "sort")}
EACH = "each"


def study(names: Sequence[str], *, normalize: bool | str = True) -> dict[str, Comparison[Any]]:
    """Give comparisons by their names, squared differences summed over channels.

    Args:
        names: "spatial", "mean", "sort", "spatial_mean" and "spatial_sort", or some of these.
        normalize: channels to unit length: true, false, or "each" for both; without it, ", raw" is put to the name.

    Raises:
        ValueError: no name, another one, one twice, or a switch that is none.

    Source: Pihlgren et al., arXiv 2302.04032.
    """
    known = [*PLAIN, *SUMS]
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ValueError(f"names is a list of some of {', '.join(known)}, each once, got {names!r}")
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the study's comparisons are {', '.join(known)}, not {unknown[0]!r}")
    if normalize != EACH:
        check_switch("normalize", normalize)
    switches = [True, False] if normalize == EACH else [bool(normalize)]
    return {f"{name}{'' if on else ', raw'}": _make(name, on) for on in switches for name in names}


def _make(name: str, normalize: bool) -> Comparison[Any]:  # noqa: FBT001
    if name in PLAIN:
        return PLAIN[name](norm="l2", channels="sum", normalize=normalize)
    return Sum({one: _make(one, normalize) for one in SUMS[name]}, dict.fromkeys(SUMS[name], 1.0))
