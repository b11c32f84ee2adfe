"""The token set: checks at birth, bytes, and the lightness of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from csat_fusion import TokenSet
from csat_fusion.errors import CompressionError


def parts(**change: Tensor) -> dict[str, Tensor]:
    good = {
        "tokens": torch.arange(12.0).reshape(3, 4),
        "weight": torch.tensor([1.0, 2.0, 3.5]),
        "start_seconds": torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64),
        "end_seconds": torch.tensor([1.0, 9.0, 2.0], dtype=torch.float64),
        "patch": torch.tensor([0, -1, 7]),
    }
    return {**good, **change}


def test_facts() -> None:
    tokens = TokenSet(**parts())
    assert (len(tokens), tokens.width, tokens.total_weight, tokens.span) == (3, 4, 6.5, (0.5, 9.0))
    half = tokens.to("cpu", torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.start_seconds.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_bytes_and_back(dtype: torch.dtype) -> None:
    tokens = TokenSet(**parts())
    back = TokenSet.from_bytes(tokens.to_bytes(dtype))
    assert back.dtype == dtype
    assert torch.equal(back.tokens, tokens.tokens.to(dtype))
    for name in ("weight", "start_seconds", "end_seconds", "patch"):
        assert torch.equal(getattr(back, name), getattr(tokens, name))


def test_bytes_are_small() -> None:
    m, d = 128, 768
    ones = torch.ones(m, dtype=torch.float64)
    tokens = TokenSet(torch.randn(m, d), ones.float(), ones * 0, ones, torch.zeros(m, dtype=torch.int64))
    assert len(tokens.to_bytes()) < m * (2 * d + 28) + 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": torch.zeros(0, 4)}, r"got torch\.float32 \[0, 4\]"),
        ({"tokens": torch.zeros(3, 4, dtype=torch.int64)}, r"got torch\.int64"),
        ({"weight": torch.ones(2)}, r"weight must be \[3\] as there are 3 tokens, got \[2\]"),
        ({"weight": torch.ones(3, dtype=torch.float64)}, r"weight must be torch\.float32, got torch\.float64"),
        ({"weight": torch.tensor([1.0, 0.0, 1.0])}, r"above 0, got 0\.0"),
        ({"patch": torch.zeros(3, device="meta", dtype=torch.int64)}, "patch is on meta, the tokens on cpu"),
        ({"end_seconds": torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)}, r"\[1\.0, 1\.0\) of token 1"),
        ({"start_seconds": torch.tensor([0, 1, float("nan")], dtype=torch.float64)}, r"\[nan, 2\.0\) of token 2"),
    ],
)
def test_parts_that_disagree_are_refused_at_birth(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        TokenSet(**parts(**change))


def test_a_type_too_small_is_refused_instead_of_writing_infinity() -> None:
    tokens = TokenSet(**parts(tokens=torch.full((3, 4), 1e6)))
    with pytest.raises(CompressionError, match=r"size 1e\+06 does not fit torch\.float16, which ends at 65504"):
        tokens.to_bytes()
    assert TokenSet.from_bytes(tokens.to_bytes(torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(CompressionError, match=r"floating-point type, got torch\.int8"):
        tokens.to_bytes(torch.int8)


def test_damaged_or_foreign_bytes_are_refused() -> None:
    payload = TokenSet(**parts()).to_bytes()
    for bad in (b"", b"abc", payload[:40], payload[:-8], b"\x08" + b"\0" * 7 + b"not json", payload + b"0"):
        with pytest.raises(CompressionError, match="damaged token set"):
            TokenSet.from_bytes(bad)
    with pytest.raises(CompressionError, match="its format is None"):
        TokenSet.from_bytes(save({"tokens": torch.zeros(1, 1)}))
    with pytest.raises(CompressionError, match="version '99' is not known"):
        TokenSet.from_bytes(save(parts(), {"format": "longreel-token-set", "version": "99"}))
    with pytest.raises(CompressionError, match="this one tokens"):
        TokenSet.from_bytes(save({"tokens": torch.zeros(1, 1)}, {"format": "longreel-token-set", "version": "1"}))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import csat_fusion, sys; print(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_is_there() -> None:
    import csat_fusion

    for name in csat_fusion.__all__:
        assert getattr(csat_fusion, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = csat_fusion.nothing


def test_the_readme_runs() -> None:
    from pathlib import Path

    import csat_fusion

    text = Path(csat_fusion.__file__).with_name("README.md").read_text()
    exec(compile(text.split("```python")[1].split("```")[0], "README.md", "exec"), {})
