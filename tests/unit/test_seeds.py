"""Draws are functions of seed and step, and words are no numbers."""

from typing import Any

import pytest
import torch

from losslab.config import load, plain
from losslab.seeds import Draws, draws_before, generator


def test_draws_go_by_seed_and_step() -> None:
    """A draw is due where the steps have come to the next one; two seeds and two draws differ, equal ones don't."""
    draws = Draws(3, 5)
    first, again = draws.due(0), draws.due(4)
    assert first is not None
    assert again is None
    assert draws.due(5) is not None
    assert str(draws) == "seed 3, draw 1"
    numbers = [torch.rand(4, generator=one) for one in (first, generator(3), generator(3, 1), generator(4))]
    assert torch.equal(numbers[0], numbers[1])
    assert len({tuple(one.tolist()) for one in numbers}) == 3
    assert [draws_before(step, 0) for step in (0, 7)] == [0, 0]


@pytest.mark.parametrize("word", ["abc", "2", 2.5, None, True])
def test_words_are_no_numbers(word: Any) -> None:
    with pytest.raises(ValueError, match="seed is a whole number, got "):
        Draws(word, 0).due(0)
    with pytest.raises(ValueError, match="redraw_every is a number of steps, or 0 for a single draw, got "):
        Draws(0, word).due(0)


@pytest.mark.parametrize("word", ["abc", "2.5", "true", "0"])
def test_draws_of_a_config_are_a_whole_number(word: str) -> None:
    """What becomes of `draws` in losses says so before any loss is built."""
    with pytest.raises(Exception, match="draws is a whole number from 1, got "):
        plain(load("loss=mmd", f"draws={word}"))
    assert plain(load("loss=mmd", "draws=3"))["loss"]["redraw_every"] == 1
    assert plain(load("loss=mmd", "draws=1"))["loss"]["redraw_every"] == 0
