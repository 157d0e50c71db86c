"""Sines in place are sines, in whatever pieces they are computed."""

import multiprocessing
from multiprocessing.connection import Connection

import pytest
import torch
from torch import Tensor

from losslab.losses.sines import FEW, in_place


@pytest.fixture
def angles() -> Tensor:
    return torch.randn(3, FEW, 5) * 30


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sines_and_cosines(angles: Tensor, name: str, threads: int) -> None:
    """Within 1e-7 of those in 64 bits, in the memory that was given, with any number of threads."""
    before, place = torch.get_num_threads(), angles.data_ptr()
    expected = getattr(angles.double(), name)()
    torch.set_num_threads(threads)
    try:
        found = in_place(name, angles)
    finally:
        torch.set_num_threads(before)
    assert found.data_ptr() == place
    assert (found - expected).abs().max() < 1.5e-7


def test_other_tensors(angles: Tensor) -> None:
    """64 bits stay 64 bits, and a view is overwritten where it lies."""
    double = angles.double()
    torch.testing.assert_close(in_place("sin", double.clone()), double.sin(), rtol=0, atol=1e-15)
    turned = angles.clone().transpose(0, 1)
    torch.testing.assert_close(in_place("cos", turned), angles.cos().transpose(0, 1))
    assert in_place("cos", torch.zeros(0)).shape == (0,)


def _child(pipe: Connection, angles: Tensor) -> None:
    in_place("cos", angles)
    pipe.send(angles.numpy().tobytes())  # torch's own threads don't outlive a fork either


def test_a_forked_process_has_threads_of_its_own(angles: Tensor) -> None:
    """A pool that a fork has left without threads would wait forever."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = in_place("cos", angles.clone()).numpy().tobytes()
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(theirs, angles))
        process.start()
        assert ours.poll(20)
        assert ours.recv() == expected
        process.join()
    finally:
        torch.set_num_threads(before)
