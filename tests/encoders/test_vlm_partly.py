"""A model behind an address that answers some of what it is asked, and what asking it has cost; a real server on this
machine."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from encoders.captioning import Caption
from encoders.errors import VlmAnswerInvalid, VlmError, VlmOverloaded, VlmRefused, VlmUnauthorised
from encoders.vlm.captioner import VlmCaptioner
from encoders.vlm.counts import VlmCounts, counts_of
from encoders.vlm.options import VlmOptions
from tests.encoders.vlm_asking import frames_of, load
from tests.encoders.vlm_server import Fault, VlmServer, answer_with, completion, say, status


def caption(captioner: VlmCaptioner, count: int) -> list[Caption]:
    """Segments of the levels 10, 20, ..., each a second long."""
    levels = [10 * (i + 1) for i in range(count)]
    spans = [(float(i), i + 1.0) for i in range(count)]
    return captioner.caption([None] * count, spans=spans, key_frames=[frames_of(level) for level in levels])


def texts(error: VlmError) -> list[str | None]:
    return [one if one is None else one.text for one in error.captions]


# one request at a time: the faults meet them in their order
ONE: dict[str, Any] = {"concurrency": 1, "retries": 0}


@pytest.mark.parametrize(
    ("fault", "kind"), [(status(400), VlmRefused), (status(413), VlmRefused), (answer_with({}), VlmAnswerInvalid)]
)
def test_one_that_is_refused_costs_that_one(server: VlmServer, fault: Fault, kind: type[VlmError]) -> None:
    server.faults.extend([say("One"), fault, say("Three")])
    with load(server, **ONE) as captioner:
        with pytest.raises(kind) as caught:
            caption(captioner, 4)
        assert texts(caught.value) == ["One", None, "Three", "1 pictures, level 40"]
        third = caught.value.captions[2]
        assert third == Caption("Three", 2.0, 3.0, server.name(), None)
        assert (captioner.counts.captions, captioner.counts.failures) == (3, 1)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(status(401), VlmUnauthorised), (status(503), VlmOverloaded), (status(429), VlmOverloaded)],
)
def test_one_that_all_would_meet_ends_it_and_what_was_answered_is_kept(
    server: VlmServer, fault: Fault, kind: type[VlmError]
) -> None:
    server.faults.extend([say("One"), say("Two"), fault])
    with load(server, **ONE) as captioner, pytest.raises(kind) as caught:
        caption(captioner, 6)
    assert texts(caught.value) == ["One", "Two", None, None, None, None]
    assert len(server.requests) == 3


def test_what_is_on_its_way_is_waited_for(server: VlmServer) -> None:
    """The first is refused at once, the others take their time: they were sent, and will be paid for."""
    server.faults.append(status(401))
    server.pause_seconds = 0.3
    with load(server, concurrency=3, retries=0) as captioner, pytest.raises(VlmUnauthorised) as caught:
        caption(captioner, 9)
    assert len([one for one in caught.value.captions if one is not None]) == len(server.requests) - 1 <= 2


def test_nobody_goes_on_asking_for_what_is_never_answered(server: VlmServer) -> None:
    server.faults.extend([status(400)] * 16)
    with load(server, **ONE) as captioner, pytest.raises(VlmRefused) as caught:
        caption(captioner, 16)
    assert len(server.requests) == 3
    assert caught.value.captions == ()


def test_a_failure_ends_the_waiting_of_others(server: VlmServer) -> None:
    """One waits for half an hour to ask again, when another is told that there is no way in."""
    server.faults.extend([status(429, None, Retry_After="1800"), status(401)])
    with load(server, concurrency=2, most_wait_seconds=3600) as captioner, pytest.raises(VlmError) as caught:
        caption(captioner, 2)
    assert isinstance(caught.value, VlmUnauthorised)
    assert len(server.requests) == 2


def test_answers_travel_with_their_error(server: VlmServer) -> None:
    server.faults.extend([say("One"), status(400)])
    with load(server, **ONE) as captioner, pytest.raises(VlmRefused) as caught:
        caption(captioner, 2)
    there = pickle.loads(pickle.dumps(caught.value))
    assert (type(there), str(there), there.captions) == (VlmRefused, str(caught.value), caught.value.captions)


# -- what it has cost --------------------------------------------------------------------------------------------------


def test_counts_add_up_and_are_told(server: VlmServer) -> None:
    silent = {key: value for key, value in completion("No usage").items() if key != "usage"}
    server.faults.extend([status(503), answer_with(silent)])
    with load(server, concurrency=1) as captioner:
        before = counts_of(captioner)
        assert before == VlmCounts()
        caption(captioner, 1)
        first = captioner.counts
        caption(captioner, 3)
        assert captioner.counts - first + first == captioner.counts
        counts = captioner.counts - first
    assert (first.requests, first.retries, first.without_usage) == (2, 1, 1)
    assert (counts.requests, counts.retries, counts.tokens_in, counts.tokens_out) == (3, 0, 300, 21)
    assert counts.line(VlmOptions()) == "3 requests, 300 tokens in, 21 out"
    priced = VlmOptions(price_in=2.5, price_out=10.0, currency="EUR")
    assert counts.line(priced) == "3 requests, 300 tokens in, 21 out, 0.0010 EUR"
    told = counts.to_dict(priced)
    assert (told["cost"], told["currency"], told["requests"]) == (pytest.approx(0.00096), "EUR", 3)
    assert {counts.to_dict(VlmOptions())[key] for key in ("cost", "currency")} == {None}
    assert first.line(VlmOptions()) == (
        "2 requests (1 of them again), 0 tokens in, 0 out (of 1 of the answers nobody says how many)"
    )


def test_what_asks_nobody_has_no_counts() -> None:
    class Another:
        counts = 3

    assert counts_of(Another()) is None
    assert counts_of(object()) is None


@pytest.mark.parametrize("options", [{"price_in": -1.0}, {"price_out": float("nan")}])
def test_prices_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="price_"):
        VlmOptions(**options)
