"""The table of docs/models.md, line by line: each kind of file in its exact layout, small, through the command that loads it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.t2i import conftest as t2i_files
from torch import Tensor

from stillmotion.cli.door import main
from stillmotion.motion import MotionModule
from stillmotion.t2i.original_names import UNET_PREFIX

Tensors = t2i_files.Tensors
pipe, tensors = t2i_files.pipe, t2i_files.tensors  # fixtures

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"
WIDTH = 32  # of the tiny model's text
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
ORIGINAL = "input_blocks.1.1.transformer_blocks.0.attn2.to_k"
TAUGHT = ("--loras", "--embeddings", "--custom-diffusion")
OTHER_MODELS = ("Stable Diffusion XL", "AnimateLCM")
"""Lines of these are run by `test_sdxl_and_few_steps.py` and `tests/t2i/test_sdxl.py`, which have such models."""
OWN_FLAGS = (*TAUGHT, "--motion-loras", "--domain-adapter", "--model", "--vae", "--motion")


def vectors(count: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(count))


def kohya(path: Path) -> Path:
    """Write LoRA, LoCon, LoHa, LoKr and a difference into one file, as LyCORIS' presets mix them."""
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    chance = torch.Generator().manual_seed(1)
    shapes = {
        f"{layer}_attn1_to_q.lora_down.weight": (2, 32),
        f"{layer}_attn1_to_q.lora_up.weight": (32, 2),
        f"{layer}_attn1_to_k.hada_w1_a": (32, 2),
        f"{layer}_attn1_to_k.hada_w1_b": (2, 32),
        f"{layer}_attn1_to_k.hada_w2_a": (32, 2),
        f"{layer}_attn1_to_k.hada_w2_b": (2, 32),
        f"{layer}_attn1_to_v.lokr_w1": (4, 4),
        f"{layer}_attn1_to_v.lokr_w2_a": (8, 2),
        f"{layer}_attn1_to_v.lokr_w2_b": (2, 8),
        "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight": (2, 32, 3, 3),
        "lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight": (32, 2, 1, 1),
        "lora_unet_conv_in.diff": (32, 4, 3, 3),
    }
    tensors = {name: torch.randn(shape, generator=chance) / 4 for name, shape in shapes.items()}
    stems = {name.partition(".")[0] for name in tensors}
    save_file(tensors | {f"{stem}.alpha": torch.tensor(1.0) for stem in stems if stem != "lora_unet_conv_in"}, path)
    return path


def diffusers_lora(folder: Path) -> Path:
    layers = {f"{LAYER}.lora_A.weight": torch.randn(2, WIDTH), f"{LAYER}.lora_B.weight": torch.randn(32, 2)}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder


def a1111(path: Path, name: str = "inkwash") -> Path:
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors(3)}, "name": name, "step": 9}, path)
    return path


def pair(path: Path) -> Path:
    a1111(path.with_stem(f"{path.stem}-neg"), "inkwash-neg")
    return a1111(path)


def learned_embeds(path: Path) -> Path:
    torch.save({"<inkwash>": vectors(1)[0]}, path)
    return path


def custom_folder(folder: Path, unet: UNet2DConditionModel) -> Path:
    processors = {}
    for name in unet.attn_processors:
        attention, crosses = unet.get_submodule(name.removesuffix(".processor")), "attn2" in name
        options = {"hidden_size": attention.to_q.out_features, "cross_attention_dim": WIDTH} if crosses else {}
        processors[name] = CustomDiffusionAttnProcessor(train_kv=crosses, train_q_out=False, **options)
    unet.set_attn_processor(processors)
    unet.save_attn_procs(folder)
    torch.save({"<new1>": vectors(1)[0]}, folder / "<new1>.bin")
    return folder


def delta(path: Path) -> Path:
    tensors = {f"{UNET_PREFIX}{ORIGINAL}.weight": torch.randn(32, WIDTH), "embed": vectors(1)}
    torch.save({"state_dict": tensors}, path)
    return path


def single_file(path: Path, tensors: Tensors) -> Path:
    """Write a model as web sites pass them around: nested, with averaged weights beside."""
    torch.save({"state_dict": {**tensors, "model_ema.decay": torch.tensor(0.9)}, "global_step": 1}, path)
    return path


def motion_of(path: Path, widths: tuple[int, ...]) -> Path:
    module = MotionModule.from_variant("v3", block_out_channels=widths, layers_per_block=2)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


class Files:
    """The tiny files that the other tests of this folder use, and a folder for more."""

    def __init__(self, here: Path, model: Path, motion: Path, motion_lora: Path, adapter: Path, whole: Tensors) -> None:
        self.here, self.model, self.motion, self.motion_lora, self.adapter = here, model, motion, motion_lora, adapter
        self.whole = whole  # a model under original names

    @property
    def unet(self) -> UNet2DConditionModel:
        return UNet2DConditionModel.from_pretrained(self.model / "unet")


# Of each line: words that stand in it, and what follows `stillmotion animate PROMPT`, the line's file being made.
LINES: dict[str, Callable[[Files], list[str]]] = {
    "a diffusers folder or a hub id": lambda its: ["--model", str(its.model)],
    "in one `.safetensors` or `.ckpt`": lambda its: [
        *("--model", str(single_file(its.here / "model.ckpt", its.whole)), "-W", "32", "-H", "32"),
        *("--motion", str(motion_of(its.here / "motion.safetensors", (32, 64)))),
    ],
    "a VAE": lambda its: ["--vae", str(shutil.copytree(its.model / "vae", its.here / "vae"))],
    "kohya's names": lambda its: ["--loras", f"{kohya(its.here / 'style.safetensors')}:0.8"],
    "diffusers' or peft's names": lambda its: ["--loras", f"{diffusers_lora(its.here / 'style')}:0.8"],
    "a textual inversion, A1111's": lambda its: ["--embeddings", str(a1111(its.here / "inkwash.pt"))],
    "a textual inversion, diffusers'": lambda its: [
        "--embeddings",
        f"inkwash={learned_embeds(its.here / 'learned_embeds.bin')}",
    ],
    "DreamArtist's pair": lambda its: ["--embeddings", str(pair(its.here / "inkwash.pt")), "-n", "inkwash-neg"],
    "Custom Diffusion, diffusers'": lambda its: [
        "--custom-diffusion",
        f"{custom_folder(its.here / 'dog', its.unet)}:0.9",
    ],
    "Custom Diffusion, the reference's": lambda its: ["--custom-diffusion", f"{delta(its.here / 'delta.ckpt')}:0.9"],
    "a motion module": lambda its: ["--motion", str(its.motion)],
    "a MotionLoRA": lambda its: ["--motion-loras", f"{its.motion_lora}:0.5"],
    "the domain adapter": lambda its: ["--domain-adapter", f"{its.adapter}:0.5"],
}


REPLAYED = ("kohya's names", "DreamArtist's pair", "Custom Diffusion, diffusers'")


def lines_of_the_page() -> dict[str, str]:
    """Return the first cell of every line of the table, and the flag in the second."""
    table = PAGE.read_text(encoding="utf-8").split("## What is read")[1].split("\n\n")[1]
    found = [re.match(r"\| (.+) \| `(--[\w-]+)", line) for line in table.splitlines()[2:]]
    return {match[1]: match[2] for match in found if match}


def test_every_line_of_the_page_is_run() -> None:
    lines = {text: flag for text, flag in lines_of_the_page().items() if flag in OWN_FLAGS}
    other_models = {text for text in lines if any(word in text for word in OTHER_MODELS)}
    assert len(other_models) == 5
    lines = {text: flag for text, flag in lines.items() if text not in other_models}
    assert len(lines) == len(LINES)
    for text in lines:
        assert sum(known in text for known in LINES) == 1, text


@pytest.fixture
def files(
    tmp_path: Path,
    tiny_model: Path,
    motion_file: Callable[..., Path],
    motion_lora_file: Callable[..., Path],
    domain_adapter_file: Path,
    tensors: Tensors,
) -> Files:
    return Files(tmp_path, tiny_model, motion_file(), motion_lora_file(), domain_adapter_file, tensors)


def made(
    words: list[str], files: Files, here: Path, name: str, prompt: str = "inkwash, <new1>, a ball"
) -> tuple[dict[str, object], list[Path]]:
    """Run `animate` on the tiny model with these words; return the record and the frames."""
    own = [] if "--model" in words else ["--model", str(files.model)]
    own += [] if "--motion" in words else ["--motion", str(files.motion)]
    settings = ["-L", "2", "-s", "1", "--seed", "3", "--device", "cpu", "--formats", "png", "-o", str(here / name)]
    assert main(["animate", prompt, *own, *settings, *words]) == 0
    (folder,) = (here / name).iterdir()
    return json.loads((folder / "run.json").read_text(encoding="utf-8")), sorted(folder.glob("**/*.png"))


def pixels(frames: list[Path]) -> list[bytes]:
    return [Image.open(frame).tobytes() for frame in frames if "sheet" not in frame.name]


@pytest.mark.parametrize("line", LINES)
def test_the_command_of_a_line_loads_its_file(
    line: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = LINES[line](files)
    flag, value = words[0], words[1]
    run, frames = made(words, files, tmp_path, "with")
    role = flag.removeprefix("--").replace("-", "_")
    used = [file for file in run["models"] if str(file["role"]).partition(".")[0] == role]
    assert used and all(re.fullmatch("[0-9a-f]{64}", file["sha256"]) for file in used)
    if flag in TAUGHT:
        name = Path(re.sub(r"^\w+=|:[\d.]+$", "", value)).name
        assert any("applied" in text and (name in text or "weights" in text) for text in run["loading"])
        _, without = made(words[2:], files, tmp_path, "without")
        assert pixels(frames) != pixels(without)
        if ":" in value:
            _, at_zero = made([flag, re.sub(r":[\d.]+$", ":0", value), *words[2:]], files, tmp_path, "at-zero")
            assert pixels(at_zero) == pixels(without)
    if line not in REPLAYED:
        return
    capsys.readouterr()
    record = next((tmp_path / "with").iterdir()) / "run.json"
    assert main(["replay", str(record), "-o", str(tmp_path / "again")]) == 0
    again = next((tmp_path / "again").iterdir())
    assert pixels(sorted(again.glob("**/*.png"))) == pixels(frames)


def test_replay_notices_another_file(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pair(tmp_path / "inkwash.pt")
    made(["--embeddings", str(path)], files, tmp_path, "first")
    record = next((tmp_path / "first").iterdir()) / "run.json"
    learned_embeds(tmp_path / "inkwash-neg.pt")
    assert main(["replay", str(record), "-o", str(tmp_path / "again")]) == 2
    assert "embeddings.0.negative/inkwash-neg.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "name", "said"),
    [
        ("--embeddings", "style.safetensors", "is a LoRA of images.*expected a textual inversion; give it as loras"),
        ("--loras", "inkwash.pt", "is a textual inversion.*expected a LoRA of the image model; give it as embeddings"),
        ("--loras", "delta.ckpt", "is Custom Diffusion weights.*give it as custom_diffusion"),
        ("--model", "delta.ckpt", "is Custom Diffusion weights.*give it as custom_diffusion"),
        (
            "--custom-diffusion",
            "inkwash.pt",
            "is a textual inversion.*expected Custom Diffusion weights; give it as emb",
        ),
        ("--embeddings", "wide.safetensors", "text of width 1024 .sd2., but .* reads text of width 32"),
        ("--embeddings", "sdxl.safetensors", "text of width 2048 .sdxl., but .* reads text of width 32"),
        ("--loras", "dora.safetensors", "is a DoRA, which is not read here"),
        ("--clip-skip", "3", "clip_skip: expected an integer from 1 to 2"),
        ("--allow-partial", "none.safetensors", "allow_partial: expected the name of one of loras or custom_diffusion"),
    ],
)
def test_a_wrong_file_is_named_before_anything_is_loaded(
    flag: str, name: str, said: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kohya(tmp_path / "style.safetensors")
    a1111(tmp_path / "inkwash.pt")
    delta(tmp_path / "delta.ckpt")
    save_file({"emb_params": torch.zeros(1, 1024)}, tmp_path / "wide.safetensors")
    save_file({"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 1280)}, tmp_path / "sdxl.safetensors")
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    save_file(
        {f"{stem}.{end}": torch.zeros(2, 2) for end in ("lora_up.weight", "dora_scale")}, tmp_path / "dora.safetensors"
    )
    given = str(tmp_path / name) if "." in name and flag != "--allow-partial" else name
    own = [] if flag == "--model" else ["--model", str(files.model)]
    words = ["animate", "a ball", *own, "--motion", str(files.motion), "--device", "cpu", flag, given]
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert re.search(said, shown), shown
    assert "Traceback" not in shown


def test_a_partial_match_is_allowed_by_name(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kohya(tmp_path / "style.safetensors")
    save_file(load_file(path) | {"lora_unet_nowhere.diff": torch.zeros(2, 2)}, path)
    common = ["--model", str(files.model), "--motion", str(files.motion), "--device", "cpu", "--loras", str(path)]
    assert main(["animate", "a ball", *common]) == 2
    assert "1 of 6 updates of the unet have no layer in this model" in capsys.readouterr().err
    run, _ = made(["--loras", str(path), "--allow-partial", path.name], files, tmp_path, "part")
    assert run["loading"] == ["style.safetensors: 5 updates applied (unet 5); skipped 1 (no such layer here)"]


def test_words_that_the_prompt_lacks_are_said(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    style, embedding = tmp_path / "style.safetensors", pair(tmp_path / "inkwash.pt")
    tags = json.dumps({"10_dog": {"sks_dog": 20, "grass": 7}})
    save_file(load_file(kohya(style)), style, metadata={"ss_tag_frequency": tags})
    words = ["--loras", str(style), "--embeddings", str(embedding), "--trigger-words", "masterpiece"]
    made(words, files, tmp_path, "lacking", "a ball")
    told = " ".join(capsys.readouterr().err.split())
    assert "loras.0: style.safetensors listens for 'sks_dog', which the prompt lacks" in told
    assert "embeddings.0: inkwash.pt does nothing until prompt has its word, 'inkwash'" in told
    assert "embeddings.0.negative: inkwash-neg.pt does nothing until negative_prompt has its word" in told
    assert "trigger_words: the prompt lacks 'masterpiece'" in told
    made([*words, "-n", "inkwash-neg"], files, tmp_path, "having", "(Sks dog:1.2), Masterpiece, [inkwash]")
    told = capsys.readouterr().err
    assert "lacks" not in told and "does nothing" not in told
    assert main(["inspect", str(style)]) == 0
    assert re.search(r"trigger_words\s+\[\"sks_dog\"\]", capsys.readouterr().out)
    assert main(["inspect", str(embedding)]) == 0
    assert re.search(r"words\s+\[\"inkwash\"\]\nnum_vectors\s+3\ntext_width\s+32", capsys.readouterr().out)
