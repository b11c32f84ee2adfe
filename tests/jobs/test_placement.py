"""What stages ask of a cluster, and what is refused at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import PlacementError
from jobs.placement import Stage, check_nodes, check_placement, plan_stages
from jobs.settings import WorkerOptions


def counts(options: WorkerOptions, **resources: float) -> tuple[int, int]:
    decode, encode = plan_stages(options, resources)
    return decode.count, encode.count


def test_a_machine_without_gpu_has_one_encoder_and_decoders_on_the_rest() -> None:
    assert counts(WorkerOptions(), CPU=8) == (7, 1)
    assert counts(WorkerOptions(), CPU=2) == (1, 1)
    assert counts(WorkerOptions(decode_cpus=2), CPU=8) == (3, 1)
    assert counts(WorkerOptions(encoders=2, encode_cpus=2.0), CPU=8) == (4, 2)


def test_each_gpu_has_an_encoder() -> None:
    decode, encode = plan_stages(WorkerOptions(), {"CPU": 16.0, "GPU": 4.0})
    assert (decode.count, encode.count, encode.gpus, decode.gpus) == (12, 4, 1.0, 0.0)
    shared = plan_stages(WorkerOptions(encode_gpus=0.5), {"CPU": 16.0, "GPU": 1.0})[1]
    assert (shared.count, shared.gpus) == (2, 0.5)
    without = plan_stages(WorkerOptions(encode_gpus=0.0), {"CPU": 4.0, "GPU": 2.0})[1]
    assert (without.count, without.gpus) == (1, 0.0)


def test_as_options_of_an_actor() -> None:
    assert Stage("decode", 2, 1.5).ray_options() == {"num_cpus": 1.5, "num_gpus": 0.0}
    assert Stage("encode", 1, 1.0, 0.5, 7).ray_options() == {"num_cpus": 1.0, "num_gpus": 0.5, "memory": 7}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (WorkerOptions(decoders=9), ["CPU", "decode 9 x 1", "encode 1 x 1", "need 10 CPUs", "has 4"]),
        (WorkerOptions(encode_cpus=5.0), ["CPU", "encode 1 x 5", "has 4"]),
        (WorkerOptions(encode_gpus=1.0), ["GPU", "encode 1 x 1", "need 1 GPUs", "has 0"]),
        (WorkerOptions(decode_memory_bytes=2000), ["memory", "decode 3 x 2000", "need 6000 bytes", "has 1000"]),
    ],
)
def test_too_much_is_refused_by_name(options: WorkerOptions, words: list[str]) -> None:
    resources = {"CPU": 4.0, "memory": 1000.0}
    with pytest.raises(PlacementError) as refused:
        check_placement(plan_stages(options, resources), resources)
    assert [word for word in words if word not in str(refused.value)] == []
    assert "--set workers" in str(refused.value)


@given(
    cpus=st.integers(1, 256),
    gpus=st.integers(0, 16),
    decode_cpus=st.floats(0.1, 1.0),
    encode_cpus=st.floats(0.1, 1.0),
    decoders=st.integers(0, 8),
)
def test_what_is_chosen_automatically_fits(
    cpus: int, gpus: int, decode_cpus: float, encode_cpus: float, decoders: int
) -> None:
    resources = {"CPU": float(cpus), "GPU": float(gpus)}
    decoders = min(decoders, cpus)
    options = WorkerOptions(decoders=decoders, decode_cpus=decode_cpus, encode_cpus=encode_cpus)
    decode, encode = plan_stages(options, resources)
    check_placement((decode, encode), resources)
    check_nodes((decode, encode), [resources])
    assert decode.count == decoders or not decoders
    assert decode.count >= 1
    assert 1 <= encode.count <= max(1, gpus)
    assert 0 < decode.cpus <= decode_cpus
    assert 0 < encode.cpus <= encode_cpus


def test_one_cpu_is_shared_and_gpus_wait_for_cpus() -> None:
    assert [(s.count, s.cpus) for s in plan_stages(WorkerOptions(), {"CPU": 1.0})] == [(1, 0.5), (1, 0.5)]
    decode, encode = plan_stages(WorkerOptions(), {"CPU": 4.0, "GPU": 8.0})
    assert (decode.count, decode.cpus, encode.count, encode.cpus, encode.gpus) == (1, 1.0, 3, 1.0, 1.0)
    decode, encode = plan_stages(WorkerOptions(encoders=4), {"CPU": 4.0})
    assert (decode.count, encode.count, encode.cpus) == (1, 4, 0.8)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage("decode", 1, 5.0), ["CPU", "decode", "needs 5 CPUs", "2 nodes has 4"]),
        (Stage("encode", 1, 1.0, 3.0), ["GPU", "encode", "needs 3 GPUs", "has 2"]),
        (Stage("encode", 1, 3.0, 1.0), ["no single node", "3 CPUs and 1 GPUs together", "encode"]),
    ],
)
def test_a_worker_must_fit_a_node(stage: Stage, words: list[str]) -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 2.0}]
    check_nodes([Stage("decode", 5, 1.0), Stage("encode", 2, 1.0, 1.0)], nodes)
    with pytest.raises(PlacementError) as refused:
        check_nodes([stage], nodes)
    assert [word for word in words if word not in str(refused.value)] == []


def test_captions_are_a_third_stage_that_shares_gpus_with_the_encoders() -> None:
    cpu = plan_stages(WorkerOptions(), {"CPU": 8.0}, captions=True)
    assert [(s.name, s.count, s.cpus, s.gpus) for s in cpu] == [
        ("decode", 6, 1.0, 0.0),
        ("encode", 1, 1.0, 0.0),
        ("caption", 1, 1.0, 0.0),
    ]
    gpu = plan_stages(WorkerOptions(), {"CPU": 16.0, "GPU": 4.0}, captions=True)
    assert [(s.count, s.gpus) for s in gpu] == [(8, 0.0), (4, 0.5), (4, 0.5)]
    one = plan_stages(WorkerOptions(), {"CPU": 16.0, "GPU": 1.0}, captions=True)
    assert [(s.count, s.gpus) for s in one] == [(14, 0.0), (1, 0.5), (1, 0.5)]
    two = {"CPU": 16.0, "GPU": 2.0}
    for options in (WorkerOptions(), WorkerOptions(encode_gpus=1.0)):
        remote = plan_stages(options, two, captions=True, captions_elsewhere=True)
        assert [(s.count, s.gpus) for s in remote] == [(13, 0.0), (2, 1.0), (1, 0.0)], "no GPU is kept from encoders"
    asked = plan_stages(WorkerOptions(caption_gpus=0.5), two, captions=True, captions_elsewhere=True)
    assert [s.gpus for s in asked] == [0.0, 0.5, 0.5], "what somebody asked for is given"
    away = plan_stages(WorkerOptions(caption_gpus=0.0), {"CPU": 16.0, "GPU": 2.0}, captions=True)
    assert [(s.count, s.gpus) for s in away] == [(13, 0.0), (2, 1.0), (1, 0.0)]


def test_three_stages_share_what_two_cores_have() -> None:
    resources = {"CPU": 2.0}
    stages = plan_stages(WorkerOptions(), resources, captions=True)
    assert [s.count for s in stages] == [1, 1, 1]
    assert 1.99 < sum(s.cpus for s in stages) <= 2.0
    check_placement(stages, resources)
    asked = plan_stages(WorkerOptions(decoders=1, encoders=1, captioners=1), resources, captions=True)
    assert [s.cpus for s in asked] == [1.0, 1.0, 1.0]
    with pytest.raises(PlacementError, match="decode 1 x 1 and encode 1 x 1 and caption 1 x 1 need 3 CPUs"):
        check_placement(asked, resources)
    few = plan_stages(WorkerOptions(), {"CPU": 4.0, "GPU": 8.0}, captions=True)
    assert [(s.count, s.cpus) for s in few] == [(1, 1.0), (1, 1.0), (2, 1.0)]
