"""Every kind goes into every dialect and comes back the same to the bit; nothing is replaced or half written."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

import stillmotion as sm
from stillmotion.checkpoints import DIALECTS
from stillmotion.errors import ConfigError, FileError, StillmotionError

from .conftest import Tensors, reference_adapter, reference_lora, reference_motion, same, write

KINDS: dict[str, Callable[..., Tensors]] = {
    "v1": partial(reference_motion, length=24),
    "v2": partial(reference_motion, mid=True),
    "v3": reference_motion,
    "sdxl_beta": partial(reference_motion, (32, 32, 64)),
    "MotionLoRA": partial(reference_lora, mid=True),
    "domain adapter": reference_adapter,
}
OUT = {
    "stillmotion": ["ours.safetensors"],
    "diffusers": ["folder", "file.safetensors"],
    "original": ["file.ckpt", "file.safetensors"],
    "comfyui": ["file.safetensors"],
}
TARGETS = [(dialect, name) for dialect, names in OUT.items() for name in names]


def read(path: Path) -> Tensors:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize(("dialect", "name"), TARGETS, ids=["-".join(target) for target in TARGETS])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(tmp_path: Path, kind: str, dialect: str, name: str, dtype: torch.dtype) -> None:
    source = write(tmp_path / "source.ckpt", KINDS[kind](dtype=dtype))
    there = sm.convert(source, dialect, tmp_path / name)
    back = sm.convert(there, "original", tmp_path / "back.ckpt")
    assert same(read(back), read(source))
    first, second = sm.inspect(source), sm.inspect(there)
    assert (first.kind, first.variant, first.dtype, first.num_frames) == (
        (second.kind, second.variant, second.dtype, second.num_frames)
    )
    assert second.dialect == (dialect if name != "file.ckpt" else "original")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    widths=st.lists(st.sampled_from([32, 64, 96]), min_size=1, max_size=4).map(tuple),
    layers=st.integers(1, 2),
    mid=st.booleans(),
    length=st.sampled_from([None, 1, 8, 24, 32, 64]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    through=st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3),
)
def test_any_geometry_any_way(
    tmp_path_factory: pytest.TempPathFactory,
    widths: tuple[int, ...],
    layers: int,
    mid: bool,
    length: int | None,
    dtype: torch.dtype,
    through: list[tuple[str, str]],
) -> None:
    folder = tmp_path_factory.mktemp("way")
    tensors = reference_motion(widths, layers, mid=mid, length=length, dtype=dtype)
    path = write(folder / "source.ckpt", tensors)
    variant = "v2" if mid else "v1"
    for index, (dialect, name) in enumerate(through):
        path = sm.convert(path, dialect, folder / str(index) / name, variant=variant)
        assert sm.load(path, expect=sm.MotionModule, variant=variant).geometry.block_out_channels == widths
    back = sm.convert(path, "original", folder / "back.safetensors", variant=variant)
    assert same(read(back), tensors)


class TestPickles:
    def test_hold_plain_tensors(self, tmp_path: Path) -> None:
        made = sm.convert(write(tmp_path / "a.safetensors", reference_motion()), "original", tmp_path / "b.ckpt")
        assert same(torch.load(made, weights_only=True), reference_motion())

    def test_keep_what_tensors_do_not_tell(self, tmp_path: Path) -> None:
        source = write(tmp_path / "a.ckpt", reference_motion(length=None))
        made = sm.convert(
            source, "original", tmp_path / "b.ckpt", variant="v1", num_attention_heads=4, motion_norm="across_frames"
        )
        content = torch.load(made, weights_only=True)
        assert same(content["state_dict"], reference_motion(length=None))
        motion = sm.load(made, expect=sm.MotionModule)
        assert (motion.variant.name, motion.variant.motion_norm) == ("v1", "across_frames")
        assert (motion.geometry.num_attention_heads, motion.max_frames) == (4, 24)

    def test_keep_metadata(self, tmp_path: Path, lora_file: Path) -> None:
        sm.save(sm.load(lora_file), tmp_path / "b.ckpt", dialect="original", metadata={"trained_on": "my clips"})
        assert sm.load(tmp_path / "b.ckpt", expect=sm.MotionLora).metadata == {"trained_on": "my clips"}


class TestWhatWeWrite:
    def test_needs_no_guess(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        motion = sm.MotionModule.from_variant(
            "v1", block_out_channels=(32, 64), max_frames=48, num_attention_heads=4, motion_norm="across_frames"
        )
        for dialect, name in TARGETS:
            again = sm.load(sm.save(motion, tmp_path / dialect / name, dialect=dialect), expect=sm.MotionModule)
            assert (again.variant, again.geometry) == (motion.variant, motion.geometry)
            assert same(again.state_dict(), motion.state_dict())

    def test_adapter_stays_an_adapter_under_the_names_of_an_image_lora(
        self, tmp_path: Path, adapter_file: Path
    ) -> None:
        made = sm.convert(adapter_file, "diffusers", tmp_path / "adapter")
        assert (made / "pytorch_lora_weights.safetensors").is_file()
        assert sm.inspect(made).kind == "domain_adapter"
        assert isinstance(sm.load(made), sm.DomainAdapter)

    def test_equal_content_gives_equal_bytes(self, tmp_path: Path, lora_file: Path) -> None:
        metadata = {f"key{index}": "value" for index in range(8)}
        for name, dialect in (("a.safetensors", "stillmotion"), ("a.ckpt", "original")):
            made = [
                sm.save(sm.load(lora_file), tmp_path / run / name, dialect=dialect, metadata=metadata)
                for run in ("first", "second")
            ]
            assert made[0].read_bytes() == made[1].read_bytes()

    def test_metadata_is_kept(self, tmp_path: Path, module_file: Path) -> None:
        made = sm.save(sm.load(module_file), tmp_path / "mm.safetensors", metadata={"licence": "Apache-2.0"})
        assert sm.inspect(made).metadata == {"licence": "Apache-2.0"}
        again = sm.convert(made, "comfyui", tmp_path / "again.safetensors")
        assert sm.inspect(again).metadata == {"licence": "Apache-2.0"}
        with safe_open(again, "pt") as file:
            assert json.loads(file.metadata()["stillmotion"])["variant"] == "v3"

    def test_positions_for_those_who_need_them(self, tmp_path: Path) -> None:
        source = write(tmp_path / "trained.ckpt", reference_motion(length=None))
        made = sm.convert(source, "comfyui", tmp_path / "comfy.safetensors", variant="v1")
        assert same(load_file(made), reference_motion(length=24))

    def test_is_readable_by_others_as_far_as_the_user_allows(self, tmp_path: Path, module_file: Path) -> None:
        made = sm.convert(module_file, "comfyui", tmp_path / "comfy.safetensors")
        assert made.stat().st_mode == module_file.stat().st_mode


class TestTargets:
    def test_beside_the_source_by_default(self, module_file: Path) -> None:
        names = {dialect: sm.convert(module_file, dialect).name for dialect in DIALECTS}
        assert names == {
            "stillmotion": "v3_sd15_mm-stillmotion.safetensors",
            "diffusers": "v3_sd15_mm-diffusers",
            "original": "v3_sd15_mm-original.ckpt",
            "comfyui": "v3_sd15_mm-comfyui.safetensors",
        }

    @pytest.mark.parametrize(("dialect", "name"), TARGETS)
    def test_nothing_is_replaced_unless_asked(self, tmp_path: Path, module_file: Path, dialect: str, name: str) -> None:
        out = sm.convert(module_file, dialect, tmp_path / "out" / name)
        before = {file: file.read_bytes() for file in out.parent.rglob("*") if file.is_file()}
        with pytest.raises(FileError, match="exists already"):
            sm.convert(module_file, dialect, out, motion_norm="across_frames")
        assert {file: file.read_bytes() for file in out.parent.rglob("*") if file.is_file()} == before
        sm.convert(module_file, dialect, out, motion_norm="across_frames", overwrite=True)
        assert sm.load(out, expect=sm.MotionModule).variant.motion_norm == "across_frames"
        assert before.keys() == {file for file in out.parent.rglob("*") if file.is_file()}

    def test_other_files_of_a_folder_stay(self, tmp_path: Path, module_file: Path) -> None:
        out = sm.convert(module_file, "diffusers", tmp_path / "folder")
        (out / "README.md").write_text("mine")
        sm.convert(module_file, "diffusers", out, overwrite=True)
        assert (out / "README.md").read_text() == "mine"

    def test_an_empty_folder_is_filled(self, tmp_path: Path, module_file: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert isinstance(sm.load(sm.convert(module_file, "diffusers", tmp_path / "empty")), sm.MotionModule)

    @pytest.mark.parametrize(
        ("dialect", "name", "error", "words"),
        [
            ("difusers", "out", ConfigError, "'difusers' is no dialect"),
            ("diffusers", "out.ckpt", ConfigError, "or is a folder"),
            ("comfyui", "out.ckpt", ConfigError, "end in .safetensors"),
            ("original", "out", ConfigError, "end in .ckpt"),
            ("original", "v3_sd15_mm.ckpt/out.ckpt", FileError, "is a file, not a folder"),
            ("comfyui", "here.safetensors", FileError, "is a folder"),
        ],
    )
    def test_targets_are_checked_before_anything_is_read(
        self, tmp_path: Path, module_file: Path, dialect: str, name: str, error: type[StillmotionError], words: str
    ) -> None:
        (tmp_path / "here.safetensors").mkdir()
        before = sorted(tmp_path.rglob("*"))
        for source in (module_file, tmp_path / "missing.ckpt"):
            with pytest.raises(error, match=words):
                sm.convert(source, dialect, tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_folder_that_may_not_be_changed(self, tmp_path: Path, module_file: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(FileError, match="may not be changed"):
            sm.convert(module_file, "comfyui", closed / "out.safetensors")

    def test_a_refused_source_leaves_nothing(self, tmp_path: Path) -> None:
        source = write(tmp_path / "unet.safetensors", {"layer.weight": torch.zeros(2, 2)})
        with pytest.raises(FileError, match="not a motion module"):
            sm.convert(source, "diffusers", tmp_path / "new" / "folder")
        assert list(tmp_path.iterdir()) == [source]

    def test_onto_itself(self, module_file: Path) -> None:
        before = torch.load(module_file, weights_only=True)
        sm.convert(module_file, "original", module_file, overwrite=True)
        assert same(torch.load(module_file, weights_only=True), before)
