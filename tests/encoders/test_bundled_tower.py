"""The bundled model's image tower, by itself and through open_clip, and the file of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encoders.bundled.tower import TinyTower, longreel_tiny
from scripts.training.loop import TrainingError
from scripts.training.model import make_model, write_weights


@pytest.fixture(scope="module")
def tower() -> TinyTower:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyTower().eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(0, 0.1).eval()


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 96), (33, 17), (16, 16), (1, 50)])
def test_tokens_lie_on_a_grid_of_a_sixteenth(tower: TinyTower, height: int, width: int) -> None:
    x = pixels(2, 3, height, width)
    rows, columns = -(-height // 16), -(-width // 16)
    embedding, tokens = tower(x)
    assert embedding.shape == (2, 256)
    assert tokens.shape == (2, rows * columns, 256)
    features, (grid,) = tower.forward_intermediates(x)
    assert features.shape[2:] == grid.shape[2:] == (rows, columns)
    torch.testing.assert_close(grid.flatten(2).transpose(1, 2), tokens)
    torch.testing.assert_close(tower.forward_head(features), embedding)
    (alone,) = tower.forward_intermediates(x, intermediates_only=True)
    assert torch.equal(alone, grid)


@torch.no_grad()
def test_tokens_come_row_by_row(tower: TinyTower) -> None:
    picture = pixels(1, 3, 96, 96)
    before = tower(picture)[1][0]
    for row, column in ((0, 5), (5, 0), (2, 3)):
        changed = picture.clone()
        changed[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 3
        moved = (tower(changed)[1][0] - before).norm(dim=1)
        assert int(moved.argmax()) == 6 * row + column


@torch.no_grad()
def test_pictures_of_a_batch_do_not_meet(tower: TinyTower) -> None:
    x = pixels(3, 3, 48, 48)
    for mine, alone in zip(tower(x), tower(x[1:2]), strict=True):
        torch.testing.assert_close(mine[1:2], alone, atol=1e-5, rtol=1e-4)


def test_blocks_start_as_their_shortcut_and_later_ones_are_left_out_more_often() -> None:
    tower = longreel_tiny(drop_path_rate=0.3)
    rates = [block.drop_path for block in tower.blocks]
    assert rates == pytest.approx([0.05 * k for k in range(7)])
    assert all(not bool(block.norm2.weight.any()) for block in tower.blocks)


def test_a_block_is_left_out_by_chance_and_counts_the_more_where_it_is_not() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block: Any = TinyTower(0.6).blocks[-2]  # keeps width and size: its shortcut is what it was given
        assert block.drop_path == pytest.approx(0.5)
        nn.init.ones_(block.norm2.weight)
        x = pixels(1, 256, 2, 2).relu()
        with torch.no_grad():
            block.norm1.eval()
            block.norm2.eval()
            own = block.norm2(block.conv2(block.norm1(block.conv1(x)).relu()))
            out = block(x.repeat(500, 1, 1, 1))
    left_out = (out - x).flatten(1).abs().amax(1) < 1e-6
    assert 0.4 < left_out.float().mean() < 0.6
    torch.testing.assert_close(out[~left_out][:1], (x + 2 * own).relu(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wrong", [{"pretrained": True}, {"num_classes": 10}, {"global_pool": "avg"}])
def test_what_it_has_not_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="longreel_tiny has no pretrained weights, classes or pooling"):
        longreel_tiny(**wrong)


def test_other_layouts_are_refused(tower: TinyTower) -> None:
    with pytest.raises(ValueError, match="output_fmt 'NLC' is not NCHW"):
        tower.forward_intermediates(pixels(1, 3, 32, 32), output_fmt="NLC")


@torch.no_grad()
def test_through_open_clip_it_gives_the_same(model: Any) -> None:
    assert type(model.visual.trunk) is TinyTower
    assert [block.drop_path for block in model.visual.trunk.blocks][-1] == pytest.approx(0.1)
    x = pixels(2, 3, 96, 96)
    embedding, tokens = model.visual.trunk(x)
    visual, seen = model.visual(x)
    assert torch.equal(visual, embedding)
    assert torch.equal(seen, tokens)
    torch.testing.assert_close(model.encode_image(x), nn.functional.normalize(embedding, dim=1))


def test_a_seed_decides_the_weights(model: Any) -> None:
    for seed, same in ((0, True), (1, False)):
        other = make_model(seed).state_dict()
        assert torch.equal(other["text.token_embedding.weight"], model.state_dict()["text.token_embedding.weight"]) == (
            same
        )


def test_every_weight_comes_from_the_seed(model: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(99)
        other = make_model(0).state_dict()
    assert all(torch.equal(other[key], value) for key, value in model.state_dict().items())


def test_weights_go_through_half_precision_and_back(model: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_weights(model, tmp_path / "tiny.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]
    state = load_file(str(tmp_path / "tiny.safetensors"))
    for key, value in model.state_dict().items():
        assert torch.equal(state[key], value.half() if value.is_floating_point() else value), key
    make_model(1).load_state_dict(state)


def test_a_weight_too_large_for_half_precision_is_named(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    nn.init.constant_(network.bias, 1e6)
    with pytest.raises(TrainingError, match=r"bias does not fit into half precision: its largest is 1000000\.0"):
        write_weights(network, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []
