"""The compression benchmark: its scoring on cases worked out by hand, and a run of it on tiny streams."""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_compression
import numpy as np
import pytest
import torch
from benching import fidelity, mae, methods, tokens
from benching.ablation import ABLATIONS, ablation_of, first_members
from benching.cost import endless_cost, print_state, state_bytes
from benching.fidelity import Errors, judge_fidelity
from benching.methods import Method, all_methods, budget_of, compress, compressed
from benching.queries import effective_tokens, exact_answer, make_probe, merged_answer, sharpened
from benching.retrieval import (
    Found,
    all_tokens,
    claims_of_members,
    claims_of_spans,
    hard_moments,
    judge_retrieval,
    locate,
    print_retrieval,
    relevance,
    retrieval_of,
    score,
    span_iou,
)
from benching.rivals import RIVALS, sparse_decoded
from benching.synthetic import synthetic_stream
from benching.tables import Report, deviation, mean, spread
from benching.tokens import Moment, Stream, clip_streams, cropped_and_brightened, stream_of, windows
from torch import Tensor

from csat_fusion.compressors.base import make_compressor
from csat_fusion.compressors.table import COMPRESSORS


class Here:
    """An executor that does the work at once."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Any, *given: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*given))
        except Exception as error:  # noqa: BLE001 (what a pool does)
            future.set_exception(error)
        return future


def made(tokens: Tensor, moments: tuple[Moment, ...] = ()) -> Stream:
    """A stream at one frame a second, everything an event and everything background."""
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    start = tuple(float(t) for t in range(len(tokens)))
    return Stream("made", "test", tokens, start, tuple(t + 1 for t in start), moments, mask, mask)


# -- queries ----------------------------------------------------------------------------------------------------------


def test_effective_tokens_of_equal_scores_is_their_number() -> None:
    assert effective_tokens(torch.zeros(2, 7)).tolist() == pytest.approx([7, 7])
    assert float(effective_tokens(torch.tensor([[50.0, 0, 0]]))) == pytest.approx(1)


def test_sharpened_queries_attend_to_so_many_tokens() -> None:
    keys = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    query = sharpened(torch.randn(9, 16, generator=torch.Generator().manual_seed(1)), keys, 64.0)
    assert effective_tokens(query @ keys.mT).tolist() == pytest.approx([64] * 9, rel=1e-3)


def test_sharpening_ends_where_more_tokens_are_alike() -> None:
    keys = torch.cat([torch.ones(200, 4), -torch.ones(5, 4)])
    query = sharpened(torch.ones(1, 4), keys, 64.0)
    assert torch.isfinite(query).all()
    assert float(effective_tokens(query @ keys.mT)) == pytest.approx(200, rel=1e-3)


def test_the_error_is_0_for_exact_attention_and_1_for_the_mean_token() -> None:
    window = synthetic_stream(0, frames=32, width=16)
    flat = window.tokens.flatten(0, 1)
    probes = make_probe(window, seed=0, count=20)
    assert set(probes) == {"event", "background", "random"}
    for probe in probes.values():
        assert probe.error(exact_answer(probe.query, flat)) == 0
        assert probe.error(flat.mean(dim=0).expand(len(probe.query), -1)) == pytest.approx(1, abs=1e-5)
        halfway = (flat.mean(dim=0) + probe.exact) / 2
        assert probe.error(halfway) == pytest.approx(0.5, abs=1e-5)


def test_weights_make_merged_duplicates_exact_and_no_weights_do_not() -> None:
    some = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 9, 2, 5, 1, 3])
    flat = some.repeat_interleave(weight.long(), dim=0)
    query = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    exact = exact_answer(query, flat)
    torch.testing.assert_close(merged_answer(query, some, weight), exact)
    assert (merged_answer(query, some, None) - exact).abs().max() > 0.05


def test_a_window_without_events_has_no_event_queries() -> None:
    window = synthetic_stream(0, frames=32, width=8)
    quiet = replace(window, event=torch.zeros_like(window.event))
    assert set(make_probe(quiet, 0, 5)) == {"background", "random"}


# -- methods ----------------------------------------------------------------------------------------------------------


def test_every_compressor_of_the_table_is_measured() -> None:
    assert {method.name for method in all_methods()} == set(COMPRESSORS) - {"identity"}
    ward = {"ward", "ward, gap 0.5 s", "ward, no gap limit", "ward, fast path"}
    assert {m.label for m in all_methods(["ward"])} == ward
    with pytest.raises(ValueError, match="no compressor 'wrad'; there are ward, "):
        all_methods(["ward", "wrad"])


def test_rivals_have_rows_at_settings_that_may_serve_them_better() -> None:
    labels = {method.label for method in all_methods()}
    assert labels >= {
        "evs, run means",
        "floc, not centred",
        "tome, frame-major",
        "compose, patch-runs then kmeans",
        "dycoke, per frame",
        "visionzip, attention",
    }
    assert len(labels) == len(all_methods())


@pytest.mark.parametrize("method", all_methods(), ids=lambda method: method.label)
def test_every_row_says_where_each_token_went(method: Method) -> None:
    stream = synthetic_stream(2, frames=12, side=3, width=8, events=1)
    kept, assignment = compressed(method, stream, 27, 0, stream.tokens[0, :2], keep_assignment=True)
    assert assignment is not None
    assert assignment.shape == (12 * 9,)
    assert 0 <= int(assignment.min()) <= int(assignment.max()) < len(kept)


def test_only_methods_that_draw_at_random_are_seeded() -> None:
    assert Method("random", "random").seeded
    assert not Method("ward", "ward").seeded


def test_a_method_that_keeps_too_much_is_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = synthetic_stream(0, frames=4, side=2, width=8, events=1)
    monkeypatch.setattr(methods, "make_compressor", lambda *_, **__: make_compressor("identity", None))
    with pytest.raises(ValueError, match="kept 16 tokens of a budget of 4"):
        compress(Method("ward", "ward"), stream, 4)


def test_the_budget_is_a_share_and_at_least_one_token() -> None:
    stream = made(torch.zeros(4, 8, 2))
    assert [budget_of(stream, rate) for rate in (1, 4, 100)] == [32, 8, 1]


def test_the_first_member_of_each_group() -> None:
    flat = torch.arange(5.0)[:, None]
    assert first_members(torch.tensor([1, 0, 1, -1, 0]), flat, 2)[:, 0].tolist() == [1, 0]
    with pytest.raises(ValueError, match="group 1 of 3"):
        first_members(torch.tensor([0, 2]), flat[:2], 3)


@pytest.mark.parametrize("label", ["ward", "ward, without log weight", "ward, first token instead of mean"])
def test_an_ablation_changes_what_it_says(label: str) -> None:
    window = synthetic_stream(3, frames=16, width=16, events=2)
    errors = {kind: error for _, kind, error in ablation_of(window, label, [8], [0], 16)}
    base = {kind: error for _, kind, error in ablation_of(window, "ward", [8], [0], 16)}
    assert (errors == base) == (label == "ward")
    assert mean(list(errors.values())) >= mean(list(base.values()))


def test_every_ablation_names_one_that_is_there() -> None:
    assert all(item.base is None or item.base in ABLATIONS for item in ABLATIONS.values())


@pytest.mark.parametrize("label", RIVALS)
def test_rivals_answer_with_finite_contexts(label: str) -> None:
    window = synthetic_stream(1, frames=16, side=3, width=24, events=1)
    probe = make_probe(window, 0, 10)["background"]
    answer = RIVALS[label].build(window.tokens, 36, 0)
    assert answer is not None
    found = answer(probe.query)
    assert found.shape[-2:] == probe.exact.shape
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("label", ["DCT coefficients", "Haar coefficients"])
def test_coefficients_of_all_tokens_lose_nothing(label: str) -> None:
    window = synthetic_stream(1, frames=16, side=3, width=24, events=1)
    probe = make_probe(window, 0, 10)["background"]
    answer = RIVALS[label].build(window.tokens, 16 * 9, 0)
    assert answer is not None
    assert probe.error(answer(probe.query)) < 1e-4


def test_the_sketch_needs_a_row_for_every_patch() -> None:
    window = synthetic_stream(1, frames=16, side=3, width=8, events=1)
    assert RIVALS["temporal sketch, Haar, joint recovery"].build(window.tokens, 8, 0) is None
    assert [
        rate for rate, _, _ in fidelity.rival_fidelity(window, "temporal sketch, Haar, joint recovery", [64], [0])
    ] == []


# -- fidelity ---------------------------------------------------------------------------------------------------------


def errors_of(values: dict[str, tuple[bool, list[float]]]) -> Errors:
    errors = Errors()
    for label, (causal, each) in values.items():
        errors.causal[label], errors.exact_budget[label] = causal, True
        for i, value in enumerate(each):
            errors.add((label, 16, "event"), f"clip {i}", value)
    return errors


def test_errors_of_a_stream_are_the_mean_over_its_windows() -> None:
    errors = Errors()
    for value in (1.0, 2.0, 6.0):
        errors.add(("a", 4, "event"), "clip", value)
    assert errors.values["a", 4, "event"] == {"clip": 3.0}


def test_the_verdict_on_a_row_by_hand() -> None:
    # ward less rival: 0.01, 0.03: mean 0.02, deviation 0.014: a loss; offline 0.1 against 0.13: 1.3 times
    (row,) = judge_fidelity(
        errors_of({"ward": (True, [0.11, 0.15]), "rival": (True, [0.10, 0.12]), "slow": (False, [0.1, 0.1])}), [16]
    )
    assert (row.causal_label, row.offline_label) == ("rival", "slow")
    assert row.default == pytest.approx(0.13)
    assert not row.within_deviation
    assert not row.within_quarter
    # -0.02, 0.04: mean 0.01, deviation 0.042: within it
    (row,) = judge_fidelity(
        errors_of({"ward": (True, [0.08, 0.14]), "rival": (True, [0.10, 0.10]), "slow": (False, [0.1, 0.1])}), [16]
    )
    assert row.within_deviation
    assert row.within_quarter
    assert (row.lost, row.streams) == (1, 2)
    assert row.worst == pytest.approx(1.4)
    (row,) = judge_fidelity(errors_of({"ward": (True, [0.1, 0.1]), "rival": (True, [0.2, 0.2])}), [16])
    assert (row.lost, row.worst) == (0, 1)
    assert row.causal_label == "ward"
    assert row.within_deviation
    assert row.within_quarter


def test_a_method_that_is_told_what_is_asked_is_judged_apart(capsys: pytest.CaptureFixture[str]) -> None:
    errors = errors_of({"ward": (True, [0.2]), "slow": (False, [0.18]), "query": (False, [0.1])})
    (row,) = judge_fidelity(errors, [16])
    assert (row.offline_label, row.within_quarter) == ("slow", True)
    report = Report("test")
    fidelity.print_judged(report, "t", errors, [16])
    assert [verdict["met"] for verdict in report.data["verdicts"]] == [True, True, False]
    assert "query (told what is asked) among them: MISSED" in capsys.readouterr().out


def test_cells_of_fewer_windows_are_marked_and_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    errors = Errors()
    for label, causal in (("ward", True), ("rival", True), ("slow", False)):
        errors.causal[label], errors.exact_budget[label] = causal, True
        for window in ("a", "b"):
            if label == "ward" or window == "a":
                errors.add((label, 16, "event"), "clip", 0.5 if label == "ward" else 0.1, window)
    (row,) = judge_fidelity(errors, [16])
    assert (row.causal_label, row.offline_label) == ("ward", "-")
    fidelity.print_fidelity(Report("test"), "t", errors, [16], "")
    text = capsys.readouterr().out
    assert "| rival | yes | yes | 0.10 (1 of 2) |" in text
    assert "| **ward** | yes | yes | 0.50 |" in text


def test_decoding_is_what_ista_converges_to_and_the_best_threshold_counts() -> None:
    from csat_fusion.dictionaries.base import make_dictionary
    from csat_fusion.recovery.proximal import ista

    context = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    psi = make_dictionary("dct", 12).matrix().to(context.dtype)
    code = ista(context.mT, psi, 0.3).code
    torch.testing.assert_close(sparse_decoded(context, 0.3), (psi @ code).mT, rtol=1e-4, atol=1e-4)
    window = synthetic_stream(1, frames=16, side=3, width=24, events=1)
    probe = make_probe(window, 0, 10)["background"]
    answer = RIVALS["csat as published, one Phi, ISTA"].build(window.tokens, 36, 0)
    assert answer is not None
    each = answer(probe.query)
    assert each.shape == (3, *probe.exact.shape)
    assert probe.error(each) == min(probe.error(one) for one in each)


def test_a_method_that_fails_is_named_and_leaves_no_half_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("test")

    def fails(window: Stream, method: Method, *_: object) -> list[tuple[int, str, float]]:
        if window.name.startswith("b"):
            raise RuntimeError("no such luck")
        return [(4, "event", 0.5)]

    monkeypatch.setattr(fidelity, "fidelity_of", fails)
    window = synthetic_stream(0, frames=4, side=2, width=4, events=1)
    parts = {name: [replace(window, name=name)] for name in ("a", "b")}
    errors = fidelity.measure_fidelity(parts, [Method("ward", "ward")], [4], [0], Here(), report)  # type: ignore[arg-type]
    assert errors.values == {}
    assert report.missing == ["ward: RuntimeError: no such luck"]
    assert report.end() == 1
    assert "- ward: RuntimeError: no such luck" in capsys.readouterr().out


# -- retrieval --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [((0, 2), (1, 3), 1 / 3), ((0, 1), (1, 2), 0), ((0, 4), (1, 2), 0.25), ((1, 2), (1, 2), 1)],
)
def test_overlap_of_spans(a: tuple[float, float], b: tuple[float, float], iou: float) -> None:
    assert span_iou(a, b) == pytest.approx(iou)


def test_the_answer_is_the_stretch_around_the_peak() -> None:
    start, end = list(range(8)), list(range(1, 9))
    # median 0, peak 10: above 3 counts; the 9 further on is cut off by a 0
    scores = torch.tensor([0.0, 0, 4, 10, 5, 0, 9, 0])
    assert locate(scores, start, end) == (2, 5, 3.5)
    # a plateau: the peak is its middle
    assert locate(torch.tensor([0.0, 0, 7, 7, 7, 7, 0, 0, 0, 0]), range(10), range(1, 11)) == (2, 6, 4)
    # all alike: the whole
    assert locate(torch.ones(8), start, end) == (0, 8, 4)


def test_relevance_asks_only_tokens_that_claim_the_time() -> None:
    kept = torch.tensor([[0.0, 0], [3.0, 4]])
    start, end = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])
    times = torch.tensor([0.5, 1.5, 2.5, 9.0])
    claims = claims_of_spans(start, end, times)
    (found,) = relevance(torch.tensor([[3.0, 4], [0.0, 0]]), kept, [claims])
    # first time: distances 5 and 0; both at the second: 0 and 0; only the far one at the third; nobody at the last
    assert found.tolist() == pytest.approx([-2.5, 0, -2.5, -2.5])
    # by cosine around (0, 1): (3, 3) is 45 degrees from (1, 0) and 135 from (0, -1)
    kept = torch.tensor([[0.0, 0], [1.0, 1]])
    (found,) = relevance(torch.tensor([[3.0, 4]]), kept, [claims], torch.tensor([0.0, 1.0]))
    half = math.sqrt(0.5)
    assert found.tolist() == pytest.approx([-1 - half, half - 1, half - 1, -1 - half])


def test_a_planted_moment_is_found_and_a_span_that_claims_too_much_is_charged() -> None:
    frames = torch.zeros(10, 1, 2)
    frames[4:7] = torch.tensor([1.0, 1.0])
    moment = Moment(4.0, 7.0, torch.tensor([[1.0, 1.1]]))
    stream = made(frames, (moment,))
    kept = torch.tensor([[0.0, 0], [1.0, 1]])
    honest = score(stream, moment, kept, torch.tensor([0.0, 4.0]), torch.tensor([10.0, 7.0]))
    assert honest == Found(1.0, True)
    boasting = score(stream, moment, kept, torch.tensor([0.0, 0.0]), torch.tensor([10.0, 7.0]))
    assert boasting.iou == pytest.approx(3 / 7)
    assert not boasting.peak_inside
    assert boasting.by_membership is None
    assert retrieval_of(stream, Method("ward", "ward"), [3], [0, 1]) == {(3, 0): [Found(1.0, True, 1.0)]}
    assert all_tokens(stream) == [Found(1.0, True, 1.0)]


def test_by_membership_a_token_is_not_charged_for_time_that_it_never_saw() -> None:
    frames = torch.zeros(10, 1, 2)
    frames[4:7] = torch.tensor([1.0, 1.0])
    moment = Moment(4.0, 7.0, torch.tensor([[1.0, 1.1]]))
    stream = made(frames, (moment,))
    kept = torch.tensor([[0.0, 0], [1.0, 1]])
    assignment = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0, 0, -1])
    assert claims_of_members(assignment, 10, 2).nonzero().tolist() == sorted(
        [t, int(a)] for t, a in enumerate(assignment) if a >= 0
    )
    assert claims_of_members(torch.tensor([1, 0, 0, 0]), 2, 2).tolist() == [[True, True], [True, False]]
    found = score(stream, moment, kept, torch.tensor([0.0, 0.0]), torch.tensor([10.0, 7.0]), assignment)
    assert found.iou == pytest.approx(3 / 7)
    assert found.by_membership == 1


def test_where_uniform_was_not_run_there_are_no_hard_moments(capsys: pytest.CaptureFixture[str]) -> None:
    found = {("a", 0): [Found(0.5, True, 0.1), Found(0.1, False, 0.4)]}
    report = Report("test")
    print_retrieval(report, "t", {("all tokens", 1): found, ("ward", 32): found}, ["ward"], [32], "seed", "")
    assert "| **ward** | 0.50 | 0.50 | 0.00 | 0.50 | 0.50 | - |" in capsys.readouterr().out
    assert report.data["tables"][0]["header"][-1] == "hard"


def test_hard_moments_are_those_that_uniform_sampling_misses() -> None:
    hit, miss = Found(0.3, True), Found(0.29, True)
    results = {("uniform", 32): {("a", 0): [hit, miss], ("b", 0): [miss]}, ("ward", 32): {("a", 0): [miss, miss]}}
    assert hard_moments(results, 32) == {("a", 1), ("b", 0)}
    assert hard_moments(results, 16) is None


@pytest.mark.parametrize(("right", "met"), [(9, True), (8, False)])
def test_the_verdict_on_retrieval(right: int, met: bool) -> None:
    report = Report("test")
    hit, miss = Found(0.5, True), Found(0.0, False)
    results = {
        ("all tokens", 1): {("a", 0): [hit] * 10 + [miss] * 2},
        ("ward", 32): {("a", 0): [hit] * right + [miss] * (12 - right)},
    }
    judge_retrieval(report, "test", results)
    assert report.data["verdicts"][0]["met"] is met


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_synthetic_streams_are_made_by_their_seed() -> None:
    stream, again = synthetic_stream(5, frames=64), synthetic_stream(5, frames=64)
    assert torch.equal(stream.tokens, again.tokens)
    assert not torch.equal(stream.tokens, synthetic_stream(6, frames=64).tokens)
    assert len(stream.moments) == 8
    starts = torch.tensor(stream.start_seconds)
    inside = torch.zeros(64, dtype=torch.bool)
    for moment in stream.moments:
        inside |= (starts >= moment.start_seconds) & (starts < moment.end_seconds)
    assert torch.equal(inside, stream.event.any(dim=1))


def test_windows_are_spread_and_a_short_rest_is_left_out() -> None:
    stream = synthetic_stream(0, frames=100, side=2, width=4, events=1)
    assert [len(part.tokens) for part in windows(stream, 16, 9)] == [32, 32, 32]
    assert [part.start_seconds[0] for part in windows(stream, 16, 2)] == [0, 32]
    assert [len(part.tokens) for part in windows(stream.part(0, 20), 16, 3)] == [20]
    assert [len(part.tokens) for part in windows(stream.part(0, 50), 16, 3)] == [32, 18]


def test_events_of_a_clip_are_what_departs_inside_its_moments() -> None:
    frames = torch.zeros(8, 4, 2)
    frames[2:4, 1] = 5.0
    stream = stream_of("clip", "test", frames, [t / 2 for t in range(8)], [Moment(1.0, 2.0, torch.zeros(1, 2))])
    assert stream.event.nonzero().tolist() == [[2, 1], [3, 1]]
    assert not stream.background[:, 1].any()
    assert stream.end_seconds[-1] == 4.0


def test_the_asking_picture_is_cropped_and_brighter() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[10:90, 20:180] = 100
    asked = cropped_and_brightened(picture)
    assert asked.shape == picture.shape
    assert (asked == 115).all()


def test_clips_are_decoded_encoded_once_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sources.writing import write_video

    grey = [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)]
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "a.mp4", iter(grey), rate=5)  # four seconds
    line = {"video": "a.mp4", "duration": 4.0, "start": 1.0, "end": 2.0, "query": "grey"}
    (tmp_path / "clips" / "moments.jsonl").write_text(json.dumps(line) + "\n")
    calls: list[int] = []

    def encode(images: np.ndarray) -> Tensor:
        calls.append(len(images))
        return torch.from_numpy(images.mean(axis=(1, 2))).float()[:, None].repeat(1, 4, 1)

    monkeypatch.setitem(tokens.KINDS, "grey", lambda media, cache: encode)
    assert tokens.media_folder(str(tmp_path)) == tmp_path
    assert tokens.media_folder(str(tmp_path / "none")) is None
    (stream,) = clip_streams(tmp_path, "grey", tmp_path / "cache")
    (again,) = clip_streams(tmp_path, "grey", tmp_path / "cache")
    assert calls == [8, 1]
    assert torch.equal(stream.tokens, again.tokens)
    assert stream.start_seconds == pytest.approx([0, 0.6, 1, 1.6, 2, 2.6, 3, 3.6])  # the first frame at or after k / 2
    (moment,) = stream.moments
    assert (moment.start_seconds, moment.end_seconds) == (1.0, 2.0)
    # shown at 1.5 s: the frame of 1.4 s, number 7, 15% brighter
    assert moment.query.mean().item() == pytest.approx(70 * 1.15, abs=4)


def test_the_autoencoder_is_trained_by_its_seed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mae, "BATCH", 2)
    frames = torch.randn(3, 3, 120, 120, generator=torch.Generator().manual_seed(0))
    state = torch.random.get_rng_state()
    trained, again = mae.train(frames, seed=1, steps=2), mae.train(frames, seed=1, steps=2)
    assert torch.equal(state, torch.random.get_rng_state())
    picture = mae.pictures(np.full((2, 60, 90, 3), 255, np.uint8))
    with torch.no_grad():
        assert torch.equal(trained(picture), again(picture))
        assert trained(picture).shape == (2, 49, 192)
    assert picture.amax() == pytest.approx(2)
    monkeypatch.setattr(mae, "train", lambda _: trained)
    mae.load_or_train(tmp_path / "mae.safetensors", frames)
    kept = mae.load_or_train(tmp_path / "mae.safetensors", None)
    with torch.no_grad():
        torch.testing.assert_close(kept(picture), trained(picture), rtol=1e-4, atol=1e-4)


def test_patches_come_row_by_row() -> None:
    picture = torch.zeros(1, 3, 112, 112)
    picture[:, :, 16:32, 32:48] = 1  # second row, third column
    assert mae.MaskedAutoencoder.patches(picture).sum(dim=-1)[0].nonzero()[:, 0].tolist() == [9]


# -- cost, tables, the whole ------------------------------------------------------------------------------------------


def test_state_counts_every_storage_once() -> None:
    class Holder:
        pass

    holder: Any = Holder()
    big = torch.zeros(100, dtype=torch.float32)
    holder.whole, holder.part, holder.again = big, big[:10], [big, {"x": big}]
    array = np.zeros(50)
    holder.array, holder.view = array, array[5:]
    holder.inner = Holder()
    holder.inner.more = torch.zeros(3, dtype=torch.int64)
    assert state_bytes(holder) == 400 + 400 + 24 + sum(map(sys.getsizeof, (holder.again, {"x": big}, "x")))


def test_state_counts_lists_of_numbers_and_slots() -> None:
    class Slotted:
        __slots__ = ("times",)

    holder = Slotted()
    holder.times = [i / 3 for i in range(1000)]  # type: ignore[attr-defined]
    assert 1000 * (8 + 24) <= state_bytes(holder) < 1200 * (8 + 24)  # type: ignore[arg-type]


def test_the_state_while_streaming_holds_wards_table_and_the_tokens_of_offline_methods() -> None:
    found = print_state([Method("ward", "ward"), Method("floc", "floc")], Report("test"), widths=(16,), frames=32)
    read, held = found["ward"][16]
    assert read == 128 * (16 * 4 + 4 + 8 + 8 + 8)
    assert held > (128 + 49) ** 2 * 4
    assert found["floc"][16][1] >= 32 * 49 * 16 * 4


def test_the_state_of_the_default_does_not_grow(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("test")
    found = endless_cost([Method("ward", "ward")], (64, 128), report, width=16, last=8)
    sizes = [size for size, _ in found["ward"].values()]
    assert sizes[0] == pytest.approx(sizes[1], abs=200)  # numbers of Python that happen to be one object or two
    assert sizes[1] > 128 * 16 * 4
    assert "| ward | 128 |" in capsys.readouterr().out


def test_spread_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spread([1.0, 3.0]) == "2.00 ± 1.41"
    assert spread([1.0]) == "1.00"
    assert spread([]) == "-"
    assert deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    report = Report("test", seeds=5)
    with pytest.raises(ValueError, match="2 cells under a header of 1"):
        report.table("t", ["a"], [[1, 2]])
    report.table("t", ["a", "b"], [["x|y", 2]], values={("k", 1): math.nan})
    assert report.end(tmp_path / "out.json") == 0
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["tables"][0]["values"] == {"k/1": None}
    assert "| x\\|y | 2 |" in capsys.readouterr().out


def test_a_tiny_run_prints_all_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_compression, "ProcessPoolExecutor", Here)
    few = {label: RIVALS[label] for label in ("DCT coefficients", "csat as published, one Phi, ISTA")}
    monkeypatch.setattr(bench_compression, "RIVALS", few)
    given = ["--tiny", "--kinds", "synthetic", "--methods", "ward,uniform,tome"]
    parts = ["--part", "fidelity", "--part", "retrieval"]
    out = tmp_path / "out.json"
    assert bench_compression.main([*given, *parts, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    for title in ("Fidelity, synthetic: event queries", "the default against the best", "1/32 of the tokens"):
        assert title in text
    data = json.loads(out.read_text())
    assert len(data["verdicts"]) == 3
    assert "by membership" in text
    assert not data["missing"]


def test_what_cannot_be_measured_is_named_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--tiny", "--kinds", "vit-b-32-random", "--methods", "uniform", "--part", "fidelity"]
    assert bench_compression.main([*given, "--media", str(tmp_path)]) == 1
    assert "vit-b-32-random: no folder of real clips" in capsys.readouterr().out


def test_what_was_measured_is_written_where_a_later_part_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise ArithmeticError("no such luck")

    monkeypatch.setattr(bench_compression, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(bench_compression, "measure_retrieval", fails)
    monkeypatch.setattr(bench_compression, "RIVALS", {})
    out = tmp_path / "new" / "out.json"
    given = ["--tiny", "--kinds", "synthetic", "--methods", "ward", "--part", "fidelity", "--part", "retrieval"]
    assert bench_compression.main([*given, "--json", str(out)]) == 1
    data = json.loads(out.read_text())
    assert data["missing"] == ["retrieval, synthetic: ArithmeticError: no such luck"]
    assert len(data["tables"]) == 4
    assert "- retrieval, synthetic: ArithmeticError" in capsys.readouterr().out


def test_plots_say_what_they_leave_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(fidelity, "plot_lines", lambda _, series, **__: drawn.append(list(series)))
    errors = errors_of({"ward": (True, [0.1]), "far": (True, [3.0])})
    report = Report("test")
    fidelity.plot_fidelity(tmp_path, "synthetic", errors, [16], report)
    assert drawn[0] == ["ward"]
    assert "Without those above 1.5 everywhere: far." in report.data["remarks"][0]
