"""The number format is the fastest that agrees, and what was asked for is what is used."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from encoders import load_encoder, precision
from encoders.errors import EncoderOptionError
from encoders.precision import choose_tower
from tests.encoders.models import pictures, write_config

CPU = torch.device("cpu")


class Toy(nn.Module):
    """A tower whose low-precision copy costs and errs as told."""

    def __init__(self, slow_seconds: float, fast_seconds: float, error: float, fails: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 6)
        self.seconds, self.fast_seconds, self.error, self.fails = slow_seconds, fast_seconds, error, fails
        self.low = False

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        end = time.thread_time() + (self.fast_seconds if self.low else self.seconds)
        while time.thread_time() < end:
            pass
        if self.low and self.fails:
            raise RuntimeError("expected scalar type Float but found BFloat16")
        out = self.linear(pixels.float().flatten(1))
        return out + self.error * torch.roll(out, 1, -1) if self.low else out


def convert(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    module.low = True  # type: ignore[assignment]
    return module


def embed(module: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return module(pixels)


@pytest.mark.parametrize(
    ("toy", "chosen", "reason"),
    [
        (Toy(0.02, 0.005, 0.0), "bf16", "measured"),
        (Toy(0.005, 0.02, 0.0), "fp32", "no faster"),
        (Toy(0.02, 0.005, 0.5), "fp32", "agrees with fp32 only"),
        (Toy(0.02, 0.005, 0.0, fails=True), "fp32", "cannot run"),
    ],
    ids=["faster", "slower", "wrong", "failing"],
)
def test_auto_takes_the_fastest_that_agrees(
    toy: Toy, chosen: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    threads = torch.get_num_threads()
    tower = choose_tower(toy, "auto", CPU, (8, 8), convert, embed)
    assert tower.precision == chosen
    assert reason in tower.reason
    assert torch.get_num_threads() == threads
    assert not toy.low  # the original was not converted


def test_auto_does_not_measure_where_the_processor_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    toy = Toy(0.0, 0.0, 0.0, fails=True)
    assert choose_tower(toy, "auto", CPU, (8, 8), convert, embed).reason.endswith("no fast low precision")


def test_processor_flags_are_read(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    for flags, wanted in (("fpu avx512f avx512_bf16", True), ("fpu avx2", False), ("fpu amx_bf16", True)):
        file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert precision._cpu_has_bf16(file) is wanted
    assert precision._cpu_has_bf16(tmp_path / "none") is False


def test_low_precision_agrees_and_answers_in_float32(tmp_path: Path) -> None:
    name = f"openclip:{write_config(tmp_path, 'vit')}/random"
    frames = pictures(6)
    with load_encoder(name, device="cpu", precision="fp32") as full, load_encoder(name, precision="bf16") as low:
        assert (full.info.precision, low.info.precision) == ("fp32", "bf16")
        assert full.info.fingerprint == low.info.fingerprint
        a, b = full.encode(frames), low.encode(frames)
        assert float((a.embedding * b.embedding).sum(-1).min()) >= 0.999
        assert b.embedding.dtype == torch.float32
        assert not torch.equal(a.embedding, b.embedding)  # it really computed in bf16
        torch.testing.assert_close(full.encode_text(["a cat"]), low.encode_text(["a cat"]), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "auto, fp32, bf16"),
        ({"precision": "fp16", "device": "cpu"}, "for GPUs"),
        ({"batch_size": -1}, "batch_size"),
        ({"threads": True}, "threads"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(EncoderOptionError, match=message):
        load_encoder(f"openclip:{write_config(tmp_path, 'vit')}/random", **options)  # type: ignore[arg-type]
