"""Several optimisers that count as one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer


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


class OneByOne(Optimizer):
    """Optimisers of parameters that don't depend on each other, each of which may evaluate the closure many times.

    L-BFGS searches along a line for all parameters that it has; with an optimiser each, parameters take the steps that
    they would take alone.

    Args:
        optimizers: in order.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        """Share the parameter groups of all the optimisers."""
        self.optimizers = [*optimizers]
        self.current: int | None = None
        self.active: Sequence[int] = range(len(self.optimizers))
        super().__init__([group for one in self.optimizers for group in one.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        """Step every optimiser that `active` holds; `current` tells the closure whose turn it is."""
        loss = None
        try:
            for number in self.active:
                self.current = number
                loss = self.optimizers[number].step(closure)
        finally:
            self.current = None
        return loss

    def forget(self) -> None:
        """Drop what the optimisers remember of past gradients, and of sizes: the parameters may have new ones."""
        for one in self.optimizers:
            one.state.clear()
            if isinstance(one, LBFGS):
                one._numel_cache = None  # noqa: SLF001 - torch counts the numbers of its parameters once

    def state_dict(self) -> dict[str, Any]:
        """Give each optimiser's state by its number."""
        return {str(number): one.state_dict() for number, one in enumerate(self.optimizers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load each optimiser's state by its number, and share the groups again that loading replaced."""
        for number, one in enumerate(self.optimizers):
            one.load_state_dict(state_dict[str(number)])
        self.param_groups = [group for one in self.optimizers for group in one.param_groups]
