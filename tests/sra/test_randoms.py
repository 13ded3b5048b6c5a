"""Random numbers: Philox's published vectors, distribution, independence of batch and process."""

import torch

from sra.runtime.random_streams import Randoms, philox, round_keys


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
