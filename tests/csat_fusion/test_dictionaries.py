from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch

from csat_fusion.dictionaries.base import make_dictionary
from csat_fusion.dictionaries.graph import GraphWaveletDictionary, frame_graph
from csat_fusion.dictionaries.learned import LearnedDictionary
from csat_fusion.dictionaries.spectral import SpectralDictionary
from csat_fusion.dictionaries.wavelets import LearnableHaarDictionary
from csat_fusion.errors import CompressionError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def piecewise_constant(length: int, jumps: list[int], width: int = 3) -> torch.Tensor:
    level = (torch.arange(length)[:, None] >= torch.tensor(jumps)).sum(dim=1)
    return normal(len(jumps) + 1, width)[level]


def entries(code: torch.Tensor) -> int:
    """Rows of a code that are not zero."""
    return int((code.abs().amax(dim=-1) > 1e-9).sum())


# fixed


@pytest.mark.parametrize("length", [1, 2, 5, 8, 63, 100])
def test_the_cosine_transform_is_the_usual_one(length: int) -> None:
    signal = normal(2, length, 3)
    expected = torch.from_numpy(scipy.fft.dct(signal.numpy(), norm="ortho", axis=-2))
    torch.testing.assert_close(make_dictionary("dct", length).analyze(signal), expected)
    few = max(1, length // 2)
    low = make_dictionary("dct", length, few)
    torch.testing.assert_close(low.analyze(signal), expected[:, :few])
    torch.testing.assert_close(low.synthesize(expected[:, :few]), low.matrix() @ expected[:, :few])


def test_haar_of_four_and_of_three() -> None:
    a, b = 0.5, math.sqrt(0.5)
    four = [[a, a, b, 0], [a, a, -b, 0], [a, -a, 0, b], [a, -a, 0, -b]]
    torch.testing.assert_close(make_dictionary("haar", 4).matrix(), torch.tensor(four, dtype=torch.float64))
    c, d = math.sqrt(1 / 3), math.sqrt(1 / 6)
    three = [[c, d, b], [c, d, -b], [c, -2 * d, 0]]
    torch.testing.assert_close(make_dictionary("haar", 3).matrix(), torch.tensor(three, dtype=torch.float64))


@pytest.mark.parametrize("length", [1, 2, 7, 32, 45, 100])
def test_haar_wavelets_take_two_values_over_neighbouring_runs(length: int) -> None:
    matrix = make_dictionary("haar", length).matrix()
    torch.testing.assert_close(matrix[:, 0], torch.full((length,), 1 / math.sqrt(length), dtype=torch.float64))
    widths = []
    for atom in matrix[:, 1:].T:
        on = atom.nonzero().flatten()
        widths.append(len(on))
        assert on.tolist() == list(range(int(on[0]), int(on[-1]) + 1))
        assert int((atom[on].diff().abs() > 1e-9).sum()) == 1
        assert float(atom.sum()) == pytest.approx(0, abs=1e-9)
    powers = [1 << math.ceil(math.log2(width)) for width in widths]
    assert powers == sorted(powers, reverse=True)  # coarse to fine


@pytest.mark.parametrize("length", [16, 45, 100])
def test_piecewise_constant_signals_are_sparse_in_steps_and_haar_and_not_in_cosines(length: int) -> None:
    jumps = [3, length // 2, length - 4]
    signal = piecewise_constant(length, jumps)
    steps = make_dictionary("steps", length)
    code = torch.linalg.solve(steps.matrix(), signal)
    assert entries(code) == 4
    torch.testing.assert_close(steps.synthesize(code), signal)
    haar = make_dictionary("haar", length)
    assert entries(haar.analyze(signal)) <= 1 + 3 * math.ceil(math.log2(length))
    assert entries(make_dictionary("dct", length).analyze(signal)) > length - 3


def test_fewer_steps_start_at_even_distances() -> None:
    matrix = make_dictionary("steps", 10, 4).matrix()
    assert [int(atom.nonzero()[0]) for atom in matrix.T] == [0, 2, 5, 7]


def test_more_atoms_than_the_length_are_refused_by_a_basis() -> None:
    for name, kind in (("dct", "DCT"), ("haar", "Haar"), ("learnable-haar", "Haar"), ("steps", "step")):
        with pytest.raises(CompressionError, match=f"a {kind} dictionary of length 5 has at most 5 atoms, got 6"):
            make_dictionary(name, 5, 6)
    with pytest.raises(CompressionError, match="an identity dictionary of length 5 has 5 atoms, got 3"):
        make_dictionary("identity", 5, 3)


# learnable


@pytest.mark.parametrize("shared", [True, False])
def test_learnable_haar_begins_at_haar_and_finds_another_basis(shared: bool) -> None:
    torch.testing.assert_close(
        LearnableHaarDictionary(21, shared=shared).double().matrix(), make_dictionary("haar", 21).matrix()
    )
    dictionary = LearnableHaarDictionary(16, shared=shared)
    assert dictionary.turn.numel() == (4 if shared else 15)
    other = LearnableHaarDictionary(16, shared=shared)
    with torch.no_grad():
        other.turn += 0.5
    codes = torch.zeros(200, 16, 1)
    codes[torch.arange(200), torch.arange(200) % 16, 0] = normal(200).float()
    signals = other.synthesize(codes).detach()  # one atom each of the other basis

    def spread() -> torch.Tensor:
        return dictionary.analyze(signals).abs().mean()

    optimizer = torch.optim.Adam(dictionary.parameters(), lr=0.05)
    before = float(spread().detach())
    for _ in range(150):
        optimizer.zero_grad()
        spread().backward()
        optimizer.step()
    least = float(codes.abs().mean())
    assert float(spread().detach()) - least < 0.1 * (before - least)
    matrix = dictionary.matrix().detach()
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(16), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 3, 9, 25])
def test_spectral_atoms_begin_as_the_fourier_basis_where_the_length_is_odd(length: int) -> None:
    dictionary = SpectralDictionary(length).double()
    matrix = dictionary.matrix().detach()
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(length, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        dictionary.frequency.detach(), torch.arange(1, length // 2 + 1) / length, rtol=0, atol=1e-6, check_dtype=False
    )


def test_a_spectral_dictionary_finds_the_frequency_of_a_signal() -> None:
    time = torch.arange(40)
    signal = torch.stack([torch.sin(2 * math.pi * 0.087 * time + p) for p in (0.3, 1.1, 2.0)], dim=1)
    dictionary = SpectralDictionary(40, 7)

    def missed() -> torch.Tensor:
        matrix = dictionary.matrix()
        best = torch.linalg.lstsq(matrix, signal).solution
        return (matrix @ best - signal).square().mean()

    optimizer = torch.optim.Adam(dictionary.parameters(), lr=0.02)
    before = float(missed().detach())
    for _ in range(200):
        optimizer.zero_grad()
        missed().backward()
        optimizer.step()
    assert float(missed().detach()) < 0.01 * before
    assert float((dictionary.frequency.detach() - 0.087).abs().min()) < 0.002


def test_spectral_frequencies_stay_where_both_of_a_pair_exist() -> None:
    dictionary = SpectralDictionary(6, 11)
    with torch.no_grad():
        dictionary.raw.copy_(torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4]))
    frequency = dictionary.frequency.detach()
    assert 0 < float(frequency.min()) <= float(frequency.max()) < 0.5
    matrix = dictionary.matrix()
    torch.testing.assert_close(matrix.norm(dim=0), torch.ones(11))
    matrix.sum().backward()
    assert dictionary.raw.grad is not None
    assert bool(torch.isfinite(dictionary.raw.grad).all())
    assert SpectralDictionary(1).matrix().tolist() == [[1.0]]
    with pytest.raises(CompressionError, match="a spectral dictionary of length 1 has 1 atom, got 2"):
        SpectralDictionary(1, 2)


def test_a_learned_dictionary_begins_where_it_was_told_and_learns_atoms() -> None:
    torch.testing.assert_close(LearnedDictionary(9).matrix().detach(), make_dictionary("dct", 9).matrix().float())
    more = LearnedDictionary(8, 12, init="haar", seed=3).matrix().detach()
    torch.testing.assert_close(more[:, :8], make_dictionary("haar", 8).matrix().float())
    assert torch.equal(more, LearnedDictionary(8, 12, init="haar", seed=3).matrix())
    assert not torch.equal(more[:, 8:], LearnedDictionary(8, 12, init="haar", seed=4).matrix()[:, 8:])
    dictionary = LearnedDictionary(8, 4, init=None)
    wanted = torch.nn.functional.normalize(normal(8, 4, seed=5).float(), dim=0)
    optimizer = torch.optim.Adam(dictionary.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (dictionary.matrix() - wanted).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(dictionary.matrix().detach(), wanted, rtol=0, atol=1e-2)
    with torch.no_grad():
        dictionary.parameter[:, 1] = 0
    matrix = dictionary.matrix()
    assert bool((matrix[:, 1] == 0).all())
    matrix.sum().backward()
    for init in ("graph", "learned", "fourier"):
        with pytest.raises(CompressionError, match=f"None or one of identity, dct, .* got {init!r}"):
            LearnedDictionary(8, init=init)


@pytest.mark.parametrize("name", ["learnable-haar", "spectral", "learned"])
def test_a_module_in_half_precision_rounds_parameters_and_nothing_else(name: str) -> None:
    dictionary = make_dictionary(name, 700, 40).bfloat16()
    matrix = dictionary.matrix()
    assert matrix.dtype == torch.float32
    torch.testing.assert_close(matrix.norm(dim=0), torch.ones(40), rtol=1e-5, atol=0)
    torch.testing.assert_close(matrix, dictionary.double().matrix().float(), rtol=0, atol=1e-3)


# graph


def scenes(shown: str, seed: int = 0) -> torch.Tensor:
    """Features of frames, one letter for each scene."""
    looks = {letter: normal(6, seed=ord(letter)) for letter in set(shown)}
    return torch.stack([looks[letter] for letter in shown]) + 0.05 * normal(len(shown), 6, seed=seed)


def test_the_graph_joins_frames_that_look_alike_and_neighbours_in_time() -> None:
    weight = frame_graph(scenes("AAAAABBBBBAAAAA"), neighbors=6)
    assert torch.equal(weight, weight.T)
    assert torch.equal(weight.diagonal(), torch.zeros(15, dtype=torch.float64))
    assert 0 <= float(weight.min()) <= float(weight.max()) <= 1
    assert float(weight.diagonal(1).min()) >= 1e-3
    a, b = [0, 1, 2, 3, 4, 10, 11, 12, 13, 14], [5, 6, 7, 8, 9]
    assert float(weight[:5, 10:].max()) > 0.3
    across = weight[a][:, b].clone()
    assert float(across.max()) < 0.1
    # a few frames of B have more neighbours than B has others, so they reach into A, weakly


def test_the_graph_does_not_care_about_the_scale_of_features() -> None:
    features = scenes("AABBBA")
    torch.testing.assert_close(frame_graph(features * 1e200), frame_graph(features))
    torch.testing.assert_close(frame_graph(features.float() * 1e-30), frame_graph(features), rtol=1e-4, atol=1e-6)
    still = frame_graph(torch.ones(5, 3), neighbors=2)  # frames that are all the same
    assert set(still.unique().tolist()) == {0.0, 1.0}
    assert float(still.diagonal(1).min()) == 1.0
    assert torch.equal(frame_graph(torch.zeros(3, 2)), 1 - torch.eye(3, dtype=torch.float64))


def test_graph_wavelets_are_those_of_the_paper_with_unit_norm() -> None:
    features = scenes("AAAABBBBCCCC")
    dictionary = GraphWaveletDictionary(12, features=features, scales=3)
    weight = frame_graph(features).numpy()
    value, vector = np.linalg.eigh(np.diag(weight.sum(axis=0)) - weight)
    largest, least = value[-1], value[-1] / 20

    def kernel(x: float) -> float:
        return x**2 if x < 1 else (4 / x**2 if x > 2 else x**3 - 6 * x**2 + 11 * x - 5)

    filters = [np.exp(-((value / (0.6 * least)) ** 4))]
    for scale in np.geomspace(2 / least, 1 / largest, 3):
        filters.append(np.array([kernel(scale * max(v, 0)) for v in value]))
    atoms = np.concatenate([vector @ np.diag(f) @ vector.T for f in filters], axis=1)
    torch.testing.assert_close(dictionary.matrix(), torch.from_numpy(atoms / np.linalg.norm(atoms, axis=0)))
    wavelets = dictionary.matrix()[:, 12:]
    torch.testing.assert_close(wavelets.sum(dim=0), torch.zeros(36, dtype=torch.float64), atol=1e-6, rtol=0)
    narrow, wide = wavelets[:, 24:], wavelets[:, :12]
    assert float(narrow.diagonal().square().mean()) > float(wide.diagonal().square().mean())


def test_a_scene_that_comes_again_is_one_thing_for_the_graph() -> None:
    """A signal that follows the scenes takes fewer graph atoms than Haar atoms."""
    shown = "AAAABBBBBAAACCCCCCCBBBBAAAAAACCC"
    features = scenes(shown)
    level = {"A": 1.0, "B": -2.0, "C": 0.5}
    signal = torch.tensor([level[letter] for letter in shown], dtype=torch.float64)[:, None]

    def missed(matrix: torch.Tensor, atoms: int) -> float:
        """What the best few atoms leave, found greedily."""
        chosen: list[int] = []
        rest = signal
        for _ in range(atoms):
            chosen.append(int((matrix.T @ rest).abs().argmax()))
            part = matrix[:, chosen]
            rest = signal - part @ torch.linalg.lstsq(part, signal).solution
        return float(rest.norm() / signal.norm())

    graph = make_dictionary("graph", len(shown), features=features)
    haar = make_dictionary("haar", len(shown))
    assert missed(graph.matrix(), 3) < 0.2
    assert missed(graph.matrix(), 3) < 0.5 * missed(haar.matrix(), 3)


def test_bad_graphs_are_refused() -> None:
    features = normal(6, 2)
    for options, message in (
        ({}, r"needs features \[T, f\], got None"),
        ({"features": normal(5, 2)}, r"features must be \[6, f\], got \[5, 2\]"),
        ({"features": torch.ones(6, 2, dtype=torch.int64)}, r"floating point \[T, f\].* got torch\.int64 \[6, 2\]"),
        ({"features": torch.ones(6, 0)}, r"T and f at least 1, got torch\.float32 \[6, 0\]"),
        ({"features": torch.full((6, 2), math.inf)}, "features must be finite, got inf"),
        ({"features": features, "scales": 0}, "scales must be a whole number, at least 1, got 0"),
        ({"features": features, "neighbors": 1.5}, r"neighbors must be a whole number, at least 1, got 1\.5"),
        ({"features": features, "atoms": 6}, "6 frames at 4 scales make 30 graph wavelets, got atoms=6"),
    ):
        with pytest.raises(CompressionError, match=message):
            make_dictionary("graph", 6, **options)
    with pytest.raises(CompressionError, match="a graph of frames needs at least 2, got 1"):
        make_dictionary("graph", 1, features=torch.ones(1, 2))
