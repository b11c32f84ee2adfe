"""Files of right moments and of answers: what is read, and what each kind of bad line says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError, PredictionError, TruthError
from pipeline.evaluation.moments import (
    LONGREEL,
    QVHIGHLIGHTS,
    Prediction,
    TruthMoment,
    query_id_of,
    read_prediction_file,
    read_predictions,
    read_truth,
    read_truth_file,
)
from pipeline.media import Span

OURS = {"video": "gate.mp4", "query": "a dog runs", "start": 3, "end": 7.5}
ANSWER = {**OURS, "score": 0.3}
THEIRS = {"qid": 7, "query": "a dog runs", "vid": "gate", "duration": 150, "relevant_windows": [[24, 52], [2, 8]]}
SUBMITTED = {"qid": 7, "query": "a dog runs", "vid": "gate", "pred_relevant_windows": [[24, 50, 0.2], [0, 10, 0.9]]}


def lines(path: Path, *values: Any) -> Path:
    text = "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values)
    path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.jsonl"


class TestOurs:
    def test_lines_of_one_question_belong_together(self, file: Path) -> None:
        later = {**OURS, "start": 20, "end": 21, "from": "elsewhere"}
        other = {**OURS, "video": "door.mp4"}
        shot = {"video": "gate.mp4", "start": 0, "end": 9, "shot": "gate.mp4"}
        found = read_truth_file(lines(file, later, shot, other, "", {**OURS, "duration": 60}))
        assert (found.layout, found.shots) == (LONGREEL, 1)
        first, second = found.moments
        assert first.spans == (Span(3.0, 7.5), Span(20.0, 21.0))
        assert first.duration_seconds == 60
        assert (second.video, second.duration_seconds) == ("door.mp4", None)
        assert first.query_id == query_id_of("gate.mp4", "a dog runs") != second.query_id

    def test_answers_keep_their_order(self, file: Path) -> None:
        found = read_prediction_file(lines(file, {**ANSWER, "score": 0.1, "peak": 4}, ANSWER))
        assert found.layout == LONGREEL
        assert [(answer.score, answer.peak_or_middle_seconds) for answer in found.predictions] == [
            (0.1, 4.0),
            (0.3, 5.25),
        ]
        assert found.query_ids == (query_id_of("gate.mp4", "a dog runs"),)

    def test_any_script_and_a_byte_order_mark(self, file: Path) -> None:
        file.write_text(json.dumps({**OURS, "query": "犬が走る 🐕"}, ensure_ascii=False), encoding="utf-8-sig")
        assert read_truth(file)[0].query == "犬が走る 🐕"

    def test_line_separators_inside_of_a_text_do_not_end_a_line(self, file: Path) -> None:
        file.write_text(json.dumps({**OURS, "query": "a\u2028b"}, ensure_ascii=False) + "\r\n", encoding="utf-8")
        assert read_truth(file)[0].query == "a\u2028b"

    def test_ids_do_not_run_into_each_other(self) -> None:
        assert query_id_of("a", 'b", "c') != query_id_of('a", "b', "c")

    def test_a_little_after_the_end_is_rounding(self, file: Path) -> None:
        assert read_truth(lines(file, {**OURS, "duration": 7.0}))[0].spans == (Span(3.0, 7.5),)


class TestQVHighlights:
    def test_truth(self, file: Path) -> None:
        found = read_truth_file(lines(file, THEIRS, {**THEIRS, "qid": "8"}))
        assert found.layout == QVHIGHLIGHTS
        assert [moment.query_id for moment in found.moments] == ["7", "8"]
        # In the order of the file: the evaluator breaks ties by it.
        assert found.moments[0].spans == (Span(24.0, 52.0), Span(2.0, 8.0))
        assert (found.moments[0].video, found.moments[0].duration_seconds) == ("gate", 150.0)

    def test_submission(self, file: Path) -> None:
        empty = {"qid": 9, "pred_relevant_windows": []}
        found = read_prediction_file(lines(file, SUBMITTED, empty))
        assert found.query_ids == ("7", "9")
        assert found.predictions == (Prediction("7", "gate", 24, 50, 0.2), Prediction("7", "gate", 0, 10, 0.9))

    def test_what_its_evaluator_does_not_read_may_be_missing(self, file: Path) -> None:
        assert read_predictions(lines(file, {"qid": 7, "pred_relevant_windows": [[0, 1, 2]]}))[0].video == ""

    def test_answers_are_taken_as_they_are(self, file: Path) -> None:
        found = read_predictions(lines(file, {**SUBMITTED, "pred_relevant_windows": [[-3, 500, 1], [5, 5, 1]]}))
        assert [(answer.start_seconds, answer.end_seconds) for answer in found] == [(-3.0, 500.0), (5.0, 5.0)]


BOTH = [
    ("{", "not JSON: Expecting"),
    ("[1]", "a JSON object was expected, got [1]"),
    ({"text": "a dog runs"}, "neither our keys"),
    ("[" * 5000, "not JSON"),
    ('{"video": "a", "query": "b", "start": 0, "score": 0, "end": ' + "1" * 5000 + "}", "not JSON that can be read"),
]

BAD_TRUTH = [
    *BOTH,
    ({**OURS, "start": 7.5}, "the right span [7.5, 7.5) is empty"),
    ({**OURS, "start": 8}, "the right span [8.0, 7.5) is empty"),
    ({**OURS, "start": -1}, "starts at -1.0; media time starts at 0"),
    ({**OURS, "duration": 6}, "ends after the video, which lasts 6.0 s"),
    ({**OURS, "duration": 0}, "'duration' must be above 0"),
    ({**OURS, "start": "3"}, "'start' must be a number, got '3'"),
    ({**OURS, "start": True}, "'start' must be a number, got True"),
    ({**OURS, "start": float("nan")}, "'start' must be a finite number, got nan"),
    ('{"video": "a", "query": "b", "start": 0, "end": 1e999}', "'end' must be a finite number, got inf"),
    ({**OURS, "query": "  "}, "'query' must be a text that is not empty"),
    ({**OURS, "query": None}, "'query' must be a text that is not empty, got None"),
    ({**OURS, "video": 3}, "'video' must be a text that is not empty, got 3"),
    ('{"video": "a", "query": "\\ud800", "start": 0, "end": 1}', "half a character"),
    ({"video": "gate.mp4", "start": 3, "end": 4}, "no key 'query'; there are: 'video', 'start', 'end'"),
    ({"video": "gate.mp4", "query": "a dog runs", "end": 4}, "no key 'start'"),
    (THEIRS, "a line of kind 'qvhighlights' in a file whose first line is of kind 'longreel'"),
]

BAD_THEIRS = [
    ({**THEIRS, "qid": 7}, "qid 7 is there twice, first in line 1"),
    ({**THEIRS, "qid": "7"}, "qid 7 is there twice"),
    ({**THEIRS, "qid": 1.5}, "'qid' must be a whole number or a text, got 1.5"),
    ({**THEIRS, "qid": None}, "'qid' must be a whole number or a text, got None"),
    ({**THEIRS, "qid": 8, "relevant_windows": []}, "'relevant_windows' is empty"),
    ({**THEIRS, "qid": 8, "relevant_windows": None}, "'relevant_windows' must be a list of [start, end], got None"),
    ({**THEIRS, "qid": 8, "relevant_windows": [[1, 2], [3]]}, "relevant_windows[1] must be [start, end], got [3]"),
    ({**THEIRS, "qid": 8, "relevant_windows": [[1, 2, 3]]}, "relevant_windows[0] must be [start, end], got [1, 2, 3]"),
    ({**THEIRS, "qid": 8, "relevant_windows": [[1, "2"]]}, "relevant_windows[0][1] must be a number, got '2'"),
    ({**THEIRS, "qid": 8, "relevant_windows": [[2, 2]]}, "the right span [2.0, 2.0) is empty"),
    ({**THEIRS, "qid": 8, "relevant_windows": [[2, 160]]}, "ends after the video, which lasts 150.0 s"),
    ({"qid": 8, "query": "q", "vid": "v", "duration": 150}, "no key 'relevant_windows'"),
    ({"qid": 8, "vid": "v", "relevant_windows": [[1, 2]]}, "no key 'query'"),
    (OURS, "a line of kind 'longreel' in a file whose first line is of kind 'qvhighlights'"),
]

BAD_ANSWERS = [
    *BOTH,
    ({**ANSWER, "start": 8}, "an answer ends at 7.5, before it starts at 8.0"),
    ({**ANSWER, "score": None}, "'score' must be a number, got None"),
    ({**ANSWER, "score": float("-inf")}, "'score' must be a finite number, got -inf"),
    ({**ANSWER, "peak": "4"}, "'peak' must be a number, got '4'"),
    (OURS, "no key 'score'"),
]

BAD_SUBMITTED = [
    (SUBMITTED, "qid 7 is there twice, first in line 1"),
    ({"qid": 8, "pred_saliency_scores": [1, 2]}, "no key 'pred_relevant_windows'"),
    ({"qid": 8, "pred_relevant_windows": [[0, 1]]}, "pred_relevant_windows[0] must be [start, end, score], got [0, 1]"),
    ({"qid": 8, "pred_relevant_windows": [[2, 1, 0]]}, "ends at 1.0, before it starts at 2.0"),
    (
        {"qid": 8, "pred_relevant_windows": [[0, 1, float("nan")]]},
        "pred_relevant_windows[0][2] must be a finite number",
    ),
    ({"qid": 8, "vid": "", "pred_relevant_windows": []}, "'vid' must be a text that is not empty"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_TRUTH)
def test_bad_lines_of_our_truth(file: Path, bad: Any, said: str) -> None:
    lines(file, {**OURS, "query": "before"}, "", bad)
    with pytest.raises(TruthError) as caught:
        read_truth(file)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(("bad", "said"), BAD_THEIRS)
def test_bad_lines_of_their_truth(file: Path, bad: Any, said: str) -> None:
    lines(file, THEIRS, bad)
    with pytest.raises(TruthError) as caught:
        read_truth(file)
    assert str(caught.value).startswith(f"{file}:2: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(("bad", "said"), BAD_ANSWERS)
def test_bad_lines_of_our_answers(file: Path, bad: Any, said: str) -> None:
    lines(file, ANSWER, bad)
    with pytest.raises(PredictionError) as caught:
        read_predictions(file)
    assert str(caught.value).startswith(f"{file}:2: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(("bad", "said"), BAD_SUBMITTED)
def test_bad_lines_of_a_submission(file: Path, bad: Any, said: str) -> None:
    lines(file, SUBMITTED, bad)
    with pytest.raises(PredictionError) as caught:
        read_predictions(file)
    assert str(caught.value).startswith(f"{file}:2: ")
    assert said in str(caught.value)


def test_the_same_moment_twice(file: Path) -> None:
    with pytest.raises(TruthError, match=r"some.jsonl:3: the moment \[3.0, 7.5\) is there twice, first in line 1"):
        read_truth(lines(file, OURS, {**OURS, "start": 1}, OURS))


def test_a_video_of_two_lengths(file: Path) -> None:
    with pytest.raises(TruthError, match=r"some.jsonl:2: 'gate.mp4' lasts 61.0 s here, and 60.0 s in line 1"):
        read_truth(lines(file, {**OURS, "duration": 60}, {**OURS, "query": "another", "duration": 61}))


@pytest.mark.parametrize("read", [read_truth, read_predictions])
class TestFiles:
    def test_empty(self, file: Path, read: Any) -> None:
        with pytest.raises(InputError, match=r"some.jsonl: empty"):
            read(lines(file, "", "  "))

    def test_not_there(self, file: Path, read: Any) -> None:
        with pytest.raises(InputError, match=r"some.jsonl: cannot be read: No such file"):
            read(file)

    def test_a_folder(self, tmp_path: Path, read: Any) -> None:
        with pytest.raises(InputError, match="cannot be read: Is a directory"):
            read(tmp_path)

    def test_not_text(self, file: Path, read: Any) -> None:
        file.write_bytes(json.dumps(ANSWER).encode() + b"\n\xff\xfe\x00")
        with pytest.raises(InputError, match=r"some.jsonl:2: not UTF-8"):
            read(file)


def test_shots_alone_are_no_truth(file: Path) -> None:
    with pytest.raises(TruthError, match="1 lines with 'shot' and none with 'query'"):
        read_truth(lines(file, {"video": "a", "start": 0, "end": 1, "shot": "a"}))


def test_moments_check_themselves() -> None:
    with pytest.raises(TruthError, match="no right span"):
        TruthMoment("1", "a dog", "gate", ())
    with pytest.raises(TruthError, match="a query and a video are needed"):
        TruthMoment("1", " ", "gate", (Span(0, 1),))
    with pytest.raises(PredictionError, match="must be finite"):
        Prediction("1", "gate", 0, 1, 1, float("nan"))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(st.sampled_from([OURS, ANSWER, THEIRS, SUBMITTED]), st.data())
@settings(deadline=None, max_examples=80)
def test_any_value_anywhere_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, line: Any, data: Any) -> None:
    key = data.draw(st.sampled_from([*line, "peak", "duration", "shot"]))
    file = lines(tmp_path_factory.getbasetemp() / "any.jsonl", {**line, key: data.draw(anything)})
    for read in (read_truth, read_predictions):
        said = str(file)
        try:
            assert isinstance(read(file), list)
        except InputError as error:
            said = str(error)
        assert str(file) in said


@given(st.binary(max_size=40))
@settings(deadline=None, max_examples=80)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"bytes.jsonl"):
        read_truth(file)


@pytest.mark.media
def test_real_moments(media: Path) -> None:
    clips = read_truth_file(media / "clips" / "moments.jsonl")
    assert (sum(len(moment.spans) for moment in clips.moments), clips.shots) == (59, 0)
    assert all(moment.duration_seconds for moment in clips.moments)
    long = read_truth_file(media / "long" / "moments.jsonl")
    assert (sum(len(moment.spans) for moment in long.moments), long.shots) == (55, 12)
