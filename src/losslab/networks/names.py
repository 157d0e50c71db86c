"""Names of networks that have no config of their own.

Without torch, so that a wrong name is answered before anything is imported.
"""

from collections.abc import Sequence
from difflib import get_close_matches

TOKENS = ("vit_", "swin_", "swinv2_", "maxvit", "maxxvit")
"""What the names of torchvision's and timm's models begin with whose layers are tokens, not maps of places."""

TOKENS_REFUSED = "{} works on tokens, not on maps of places: choose a convolutional network"


def instead(name: str, known: Sequence[str]) -> str:
    """Say what to do instead of choosing a network that has no config.

    Args:
        name: that was asked for.
        known: names of all configs.

    Example:
        >>> instead("resnet19", ["resnet18", "vgg16"])
        'did you mean resnet18?'
        >>> instead("vit_b_16", ["resnet18", "vgg16"])
        'vit_b_16 works on tokens, not on maps of places: choose a convolutional network'
    """
    if name.startswith(TOKENS):
        return TOKENS_REFUSED.format(name)
    if near := get_close_matches(name, known, n=1, cutoff=0.75):
        return f"did you mean {near[0]}?"
    return (
        f"any convolutional model of torchvision or timm goes by network=torchvision or network=timm, and "
        f"network.architecture.name={name}; the choices are {', '.join(sorted(known))}"
    )
