import numpy as np
import torch

from cascade.rng import seed_from, stream, torch_stream


def test_streams_depend_on_seed_and_name_alone():
    a = stream(3, "noise", 7).random(4)
    stream(3, "other").random(100)
    np.testing.assert_array_equal(a, stream(3, "noise", 7).random(4))
    assert not np.allclose(a, stream(4, "noise", 7).random(4))
    assert not np.allclose(a, stream(3, "noise", 8).random(4))
    assert not np.allclose(stream(1, "a", "b").random(4), stream(1, "b", "a").random(4))


def test_torch_streams_are_independent():
    a = torch.randn(20_000, generator=torch_stream(0, "latents", 1))
    b = torch.randn(20_000, generator=torch_stream(0, "latents", 2))
    assert abs(float((a * b).mean())) < 0.03
    assert torch.equal(a, torch.randn(20_000, generator=torch_stream(0, "latents", 1)))


def test_a_generator_gives_a_new_seed_each_time():
    generator = torch.Generator().manual_seed(5)
    seeds = [seed_from(generator) for _ in range(3)]
    assert len(set(seeds)) == 3
    assert seeds[0] == seed_from(torch.Generator().manual_seed(5))
    assert seed_from(None) != seed_from(None)
