"""Several optimisers that count as one."""

from typing import Any

import torch
from torch.optim import Optimizer


class JointOptimizer(Optimizer):
    """Optimisers of different parameters that take each step together.

    Lightning counts a step for every optimiser it knows, and gives up clipping, accumulation and schedules where there
    are several. For it this is one: a step of all of them is one step, and `max_steps` means batches.

    Args:
        optimizers: by name; the names stand in the state of a checkpoint.
    """

    def __init__(self, **optimizers: Optimizer) -> None:
        """Share the parameter groups of all the optimisers."""
        self.optimizers = optimizers
        super().__init__([group for one in optimizers.values() for group in one.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        """Evaluate the closure once, then step every optimiser."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for one in self.optimizers.values():
            one.step()
        return loss

    def forget(self) -> None:
        """Drop what the optimisers remember of past gradients, before a loss of another scale takes over."""
        for one in self.optimizers.values():
            one.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Give each optimiser's state by name."""
        return {name: one.state_dict() for name, one in self.optimizers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load each optimiser's state by name, and share the groups again that loading replaced."""
        for name, one in self.optimizers.items():
            one.load_state_dict(state_dict[name])
        self.param_groups = [group for one in self.optimizers.values() for group in one.param_groups]
