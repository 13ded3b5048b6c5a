"""Random numbers: Philox's published vectors, distribution, independence of batch and process."""

import contextlib
import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sra.runtime.random_streams import Randoms, Together, philox, round_keys


def words(values):
    return tuple(torch.tensor([v], dtype=torch.int64) for v in values)


def test_philox_known_answers():
    # Random123's kat_vectors for philox4x32-10.
    zero = philox(words([0, 0, 0, 0]), round_keys((0, 0)))
    assert [int(w) for w in zero] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = philox(words([0xFFFFFFFF] * 4), round_keys((0xFFFFFFFF, 0xFFFFFFFF)))
    assert [int(w) for w in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_numbers_belong_to_positions_not_batches():
    together = Randoms(5, torch.arange(10)).normal("noise", (4, 3))
    apart = torch.cat([Randoms(5, torch.arange(i, i + 5)).normal("noise", (4, 3)) for i in (0, 5)])
    assert torch.equal(together, apart)


def test_streams_and_seeds_differ():
    positions = torch.arange(100)
    a = Randoms(0, positions).uniform("t")
    assert not torch.equal(a, Randoms(0, positions).uniform("dropout"))
    assert not torch.equal(a, Randoms(1, positions).uniform("t"))


def test_a_longer_draw_begins_with_the_shorter():
    long, short = Randoms(0, torch.arange(3)).normal("n", (8,)), Randoms(0, torch.arange(3)).normal("n", (5,))
    assert torch.equal(long[:, :5], short)


def test_distribution():
    randoms = Randoms(0, torch.arange(1000))
    normal, uniform = randoms.normal("a", (200,)), randoms.uniform("b", (200,))
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.std()) - 1) < 0.01
    assert abs(float((normal**4).mean()) - 3) < 0.1
    assert abs(float(uniform.mean()) - 0.5) < 0.005
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1


def draws(randoms):
    """Requests of a training step."""
    return [
        randoms.normal("latent", (4, 8, 8)),
        randoms.uniform("dropout"),
        randoms.normal("noise", (4, 8, 8)),
        randoms.uniform("align.group", (6,)),
        randoms.uniform("align.time", (2,)),
        randoms.normal("t.normal"),
    ]


class CountOperations(TorchDispatchMode):
    """Counts operations that a GPU would launch a kernel for: those that are not views."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("compiled", [False, True])
def test_draws_of_a_step_are_made_at_once_and_are_the_same_numbers(compiled, monkeypatch):
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    together = Together(compiled=compiled)
    for step in range(3):
        positions = torch.arange(step * 5, step * 5 + 5)
        expected = draws(Randoms(3, positions))
        operations = CountOperations()
        with contextlib.nullcontext() if compiled else operations:
            found = draws(Randoms(3, positions, together))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        if step > 0 and not compiled:
            assert 100 < operations.count < 150  # of one draw: about 120
