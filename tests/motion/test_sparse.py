"""SparseCtrl's encoder: it never sees the noise, carries pictures to other frames, and knows how many it can."""

import pytest
import torch
from torch import Tensor

from stillmotion.errors import MismatchError
from stillmotion.motion import MotionGeometry
from stillmotion.motion.sparse import SparseEncoder

WIDTHS, FRAMES = (32, 64), 3


@pytest.fixture(scope="module", params=["rgb", "scribble"])
def encoder(request: pytest.FixtureRequest) -> SparseEncoder:
    config = {
        "conditioning_channels": 5 if request.param == "rgb" else 4,
        "block_out_channels": WIDTHS,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "cross_attention_dim": 16,
        "layers_per_block": 1,
        "conditioning_embedding_out_channels": (8, 16),
    }
    geometry = MotionGeometry(
        block_out_channels=WIDTHS, layers_per_block=1, attentions_per_block=1, has_up_blocks=False, max_frames=4
    )
    torch.manual_seed(0)
    made = SparseEncoder(config, geometry, request.param)
    for name, parameter in made.named_parameters():  # nothing is zero by birth
        parameter.data += 0.1 * torch.randn_like(parameter) if "norm" not in name else 0
    return made.eval().requires_grad_(False)


def pictures(encoder: SparseEncoder, count: int = 1) -> Tensor:
    channels, side = (4, 8) if encoder.style == "rgb" else (3, 16)
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def residuals(encoder: SparseEncoder, rows: Tensor, strength: float = 1.0) -> list[Tensor]:
    text = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(2)).expand(len(rows), -1, -1)
    down, mid = encoder(rows, torch.tensor(300), text, len(rows), strength)
    return [*down, mid]


def test_the_entrance_has_a_row_for_frames_without_a_picture(encoder: SparseEncoder) -> None:
    seen = pictures(encoder, 2)
    entrance = encoder.entrance(seen)
    assert entrance.shape == (3, 32, 8, 8)
    shown = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
    bias = encoder.conv_in(torch.zeros(1, 4, 8, 8))
    torch.testing.assert_close(entrance[:2], encoder.embedding(shown) + bias)
    torch.testing.assert_close(entrance[2:], encoder.embedding(torch.zeros_like(shown[:1])) + bias)
    torch.testing.assert_close(encoder.entrance(seen[:1])[[0, 1]], entrance[[0, 2]])


def test_a_picture_reaches_the_other_frames(encoder: SparseEncoder) -> None:
    """Temporal layers carry it there, and only they: nothing is left of it where they are taken out."""
    shown, blank = encoder.entrance(pictures(encoder))
    clip, empty = torch.stack([shown, blank, blank]), torch.stack([blank] * FRAMES)
    carried, without = residuals(encoder, clip)[-1], residuals(encoder, empty)[-1]
    assert not torch.allclose(carried[2], without[2], rtol=1e-3)
    sites = [site for block in encoder.net.down_blocks for site in block.motion_modules]
    kept = [site.proj_out.state_dict() for site in sites]
    kept = [{name: value.clone() for name, value in state.items()} for state in kept]
    for site in sites:
        for parameter in site.proj_out.parameters():
            parameter.zero_()
    still, plain = residuals(encoder, clip)[-1], residuals(encoder, empty)[-1]
    for site, state in zip(sites, kept, strict=True):
        site.proj_out.load_state_dict(state)
    assert torch.equal(still[2], plain[2])
    assert not torch.allclose(still[0], plain[0], rtol=1e-3)


def test_strength_multiplies_what_is_added(encoder: SparseEncoder) -> None:
    rows = encoder.entrance(pictures(encoder))[[0, 1, 1]]
    for whole, part in zip(residuals(encoder, rows), residuals(encoder, rows, 0.25), strict=True):
        torch.testing.assert_close(part, 0.25 * whole)


def test_files_name_the_layers_as_diffusers_does(encoder: SparseEncoder) -> None:
    names = encoder.file_names()
    stored = {f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in encoder.state_dict()}
    assert len(stored) == len(encoder.state_dict())
    last = "" if encoder.style == "rgb" else ".conv_out"
    for name in (
        "conv_in.weight",
        f"controlnet_cond_embedding{last}.weight",
        "down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe",
        "controlnet_mid_block.bias",
    ):
        assert name in stored


def test_more_frames_than_positions_are_named(encoder: SparseEncoder) -> None:
    rows = encoder.entrance(pictures(encoder))[[0, 1, 1, 1, 1]]
    with pytest.raises(MismatchError, match="positions for 1 to 4 frames, not 5"):
        residuals(encoder, rows)


def test_sites_without_a_layer_are_named() -> None:
    geometry = MotionGeometry(block_out_channels=WIDTHS, layers_per_block=3, has_up_blocks=False)
    config = {"block_out_channels": WIDTHS, "down_block_types": ("DownBlock2D",) * 2, "layers_per_block": 1}
    with pytest.raises(MismatchError, match=r"no layer for down_blocks.0.motion_modules.1"):
        SparseEncoder(config, geometry, "rgb")
