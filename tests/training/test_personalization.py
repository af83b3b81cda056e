"""Personalisation from end to end: each method learns, leaves the rest alone, goes on exactly, and others read its files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import stillmotion as sm
from stillmotion.cli.door import main
from stillmotion.errors import Cancelled, ConfigError, FileError
from stillmotion.t2i import apply_custom_diffusion, apply_embedding, apply_lora
from stillmotion.training import PersonalizeConfig, Trained, personalizing
from stillmotion.training.personalization import job

SIDE = 32
PROMPT = "a neon ball"
TOKEN = "<glow>"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
OWN: dict[str, dict[str, Any]] = {
    "dreambooth": {
        "learning_rate": 1e-3,
        "class_prompt": "a ball",
        "num_class_pictures": 2,
        "train_text_encoder": True,
    },
    "lora": {"learning_rate": 1e-2, "rank": 4, "alpha": 2, "train_text_encoder": True},
    "textual_inversion": {"learning_rate": 1e-1, "token": TOKEN, "initial_words": "a paper ball", "num_vectors": 3},
    "custom_diffusion": {"learning_rate": 1e-2, "token": TOKEN, "initial_words": "paper"},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small pictures of one look, without captions."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        pixels = np.full((40, 32, 3), (10, 10, 60), np.uint8)
        pixels[8 : 20 + 4 * index, 6:26] = (250, 40 * index, 200)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def make(tiny_model: Path, pictures: Path, tmp_path: Path) -> Callable[..., PersonalizeConfig]:
    """Return a short personalisation by a method."""

    def made(method: str, **changes: Any) -> PersonalizeConfig:
        prompt = None if "token" in OWN[method] else PROMPT
        told = {"pictures": str(pictures), "instance_prompt": prompt, "output_dir": tmp_path / method}
        steps = {"num_steps": 20, "warmup_steps": 2, "validate_every": 7, "save_dtype": "float32", "batch_size": 2}
        return PersonalizeConfig(
            **{"method": method, "model": str(tiny_model), "device": "cpu", **told, **steps, **OWN[method], **changes}
        )

    return made


def logged(config: PersonalizeConfig, name: str) -> list[float]:
    """Return every value that the metrics have under a name."""
    lines = [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def learnt(config: PersonalizeConfig) -> dict[str, Tensor]:
    """Return what the newest checkpoint holds."""
    newest = max(config.output_dir.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return load_file(newest / "weights.safetensors")


def run(config: PersonalizeConfig, path: Path) -> None:
    """Personalise from the command line, with a config file."""
    path.write_text(config.to_yaml())
    assert main(["personalize", config.method.replace("_", "-"), "-c", str(path), "--plain"]) == 0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, set[str]]]:
    """Return a function that tells, by part, which weights of the model that was trained are not what they were."""
    loaded: list[tuple[sm.T2I, dict[str, dict[str, Tensor]]]] = []
    load = job.load_t2i

    def load_and_remember(*arguments: Any, **options: Any) -> sm.T2I:
        t2i = load(*arguments, **options)
        loaded.append((t2i, {part: copied(getattr(t2i, part)) for part in ("unet", "vae", "text_encoder")}))
        return t2i

    def changed() -> dict[str, set[str]]:
        t2i, before = loaded[-1]
        now = {part: getattr(t2i, part).state_dict() for part in before}
        assert all(set(now[part]) == set(before[part]) for part in before)
        return {part: {n for n in now[part] if not torch.equal(now[part][n], before[part][n])} for part in before}

    monkeypatch.setattr(job, "load_t2i", load_and_remember)
    return changed


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def pipeline(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


@torch.no_grad()
def predicted(pipe: StableDiffusionPipeline | sm.T2I, prompt: str) -> Tensor:
    """Return what a UNet predicts for fixed latents and the text features of a prompt."""
    if isinstance(pipe, sm.T2I):
        text = pipe.encode_text([prompt])
    else:
        text, _ = pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    latents = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(0))
    return pipe.unet(latents, 300, encoder_hidden_states=text).sample


def assert_learnt(config: PersonalizeConfig) -> None:
    """Hold that the error on the pictures, at fixed timesteps and noise, went down and down."""
    found = logged(config, "validation_loss")
    assert len(found) == 3
    assert found == sorted(found, reverse=True)


def test_a_lora_is_learnt_and_read_by_all(
    make: Callable[..., PersonalizeConfig], watched: Any, tiny_model: Path, tmp_path: Path
) -> None:
    config = make("lora")
    run(config, tmp_path / "lora.yaml")
    assert_learnt(config)
    assert watched() == {"unet": set(), "vae": set(), "text_encoder": set()}
    plain, factors = pipeline(tiny_model), learnt(config)
    for name, down in factors.items():  # W + alpha / rank · up · down
        if name.endswith("/down"):
            part, *path = name.removesuffix("/down").split("/")
            layer = getattr(plain, part).get_submodule(".".join(path))
            layer.weight.data += 2 / 4 * factors[name.removesuffix("down") + "up"] @ down
    expected = predicted(plain, PROMPT)
    assert not torch.allclose(expected, predicted(pipeline(tiny_model), PROMPT), atol=1e-3)
    for name in ("lora.safetensors", "lora-kohya.safetensors"):
        file = config.output_dir / name
        pipe = pipeline(tiny_model)
        pipe.load_lora_weights(str(file))
        torch.testing.assert_close(predicted(pipe, PROMPT), expected, **CLOSE)
        t2i = sm.load_t2i(tiny_model)
        apply_lora(t2i, file)
        torch.testing.assert_close(predicted(t2i, PROMPT), expected, **CLOSE)
        with safe_open(file, "pt") as opened:
            told = opened.metadata()
        assert told["modelspec.trigger_phrase"] == PROMPT
        assert json.loads(told["training"])["step"] == 20
        assert str(config.output_dir.parent) not in told["training"]
        assert "model/unet/diffusion_pytorch_model.safetensors" in json.loads(told["training"])["parents"]
    assert float(load_file(config.output_dir / "lora-kohya.safetensors")[_an_alpha()]) == 2


def _an_alpha() -> str:
    return "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha"


def test_a_word_is_learnt_and_read_by_all(
    make: Callable[..., PersonalizeConfig], watched: Any, tiny_model: Path, tmp_path: Path
) -> None:
    config = make("textual_inversion", sample_every=20, sample_prompts=(f"a {TOKEN}",))
    run(config, tmp_path / "word.yaml")
    assert_learnt(config)
    assert watched() == {"unet": set(), "vae": set(), "text_encoder": set()}
    assert [tuple(value.shape) for value in learnt(config).values()] == [(3, 32)]
    (rows,) = learnt(config).values()
    prompt, first = f"a photo of {TOKEN} ball", predicted(pipeline(tiny_model), "a photo of ball")
    files = ["learned_embeds.safetensors", "glow.pt", "glow.safetensors"]
    found = []
    for name in files:
        assert torch.equal(_only_rows(config.output_dir / name), rows)
        t2i = sm.load_t2i(tiny_model)
        apply_embedding(t2i, config.output_dir / name, word=TOKEN)
        found.append(predicted(t2i, prompt))
        pipe = pipeline(tiny_model)
        pipe.load_textual_inversion(str(config.output_dir / name), token=TOKEN)
        found.append(predicted(pipe, prompt))
    assert not torch.allclose(found[0], first, atol=1e-4)
    made = sorted(path.name for path in (config.output_dir / "samples" / "step-000020").iterdir())
    assert made == ["0.png", "1.png", "contact-sheet.png"]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **CLOSE)


def _only_rows(file: Path) -> Tensor:
    if file.suffix == ".pt":
        return torch.load(file, weights_only=True)["string_to_param"]["*"]
    (rows,) = load_file(file).values()
    return rows


def test_custom_diffusion_is_learnt_and_read_by_all(
    make: Callable[..., PersonalizeConfig], watched: Any, tiny_model: Path, tmp_path: Path
) -> None:
    config = make("custom_diffusion")
    run(config, tmp_path / "custom.yaml")
    assert_learnt(config)
    assert watched() == {"unet": set(), "vae": set(), "text_encoder": set()}
    folder = config.output_dir / "custom_diffusion"
    plain = pipeline(tiny_model)
    for name, value in learnt(config).items():
        if name.startswith("attention."):
            path, _, layer = name.removeprefix("attention.").removesuffix(".weight").partition(".")
            attention = plain.unet.get_submodule(path.replace("/", ".").removesuffix(".processor"))
            getattr(attention, layer.removesuffix("_custom_diffusion")).weight.data.copy_(value)
    plain.load_textual_inversion({TOKEN: learnt(config)["word.rows"]})
    prompt = f"a photo of {TOKEN} ball"
    expected = predicted(plain, prompt)
    pipe = pipeline(tiny_model)
    before = predicted(pipe, prompt)
    # diffusers sets the processors only where it is told the pipeline, and needs those of self-attention in the file.
    pipe.unet.load_attn_procs(
        str(folder), weight_name="pytorch_custom_diffusion_weights.bin", use_safetensors=False, _pipeline=pipe
    )
    pipe.load_textual_inversion(str(folder), weight_name=f"{TOKEN}.safetensors")
    torch.testing.assert_close(predicted(pipe, prompt), expected, **CLOSE)
    assert not torch.allclose(expected, before, atol=1e-4)
    t2i = sm.load_t2i(tiny_model)
    apply_custom_diffusion(t2i, folder)
    torch.testing.assert_close(predicted(t2i, prompt), expected, **CLOSE)


def test_a_dreambooth_model_is_learnt_and_read_by_all(
    make: Callable[..., PersonalizeConfig], watched: Any, tmp_path: Path
) -> None:
    config = make("dreambooth", train_text_encoder=False)
    run(config, tmp_path / "dreambooth.yaml")
    assert_learnt(config)
    changed = watched()
    assert (changed["vae"], changed["text_encoder"]) == (set(), set())
    folder = config.output_dir / "dreambooth"
    pipe, t2i = pipeline(folder), sm.load_t2i(folder)
    for name, value in learnt(config).items():
        assert torch.equal(pipe.unet.state_dict()[name.removeprefix("unet.")], value)
    torch.testing.assert_close(predicted(pipe, PROMPT), predicted(t2i, PROMPT), **CLOSE)
    assert pipe.scheduler.config.beta_schedule == "scaled_linear"
    drawn = sorted((config.output_dir / "class-pictures").glob("*/*.png"))
    assert len(drawn) == 2
    before = [path.read_bytes() for path in drawn]
    drawn[1].unlink()
    run(config.replace(num_steps=21), tmp_path / "dreambooth.yaml")  # whose folder takes the place of the first
    assert [path.read_bytes() for path in drawn] == before
    assert not torch.equal(pipeline(folder).unet.conv_in.weight, pipe.unet.conv_in.weight)
    assert not list(config.output_dir.glob(".dreambooth*"))


@pytest.mark.parametrize("method", OWN)
def test_a_stopped_run_goes_on_bit_for_bit(method: str, make: Callable[..., PersonalizeConfig], tmp_path: Path) -> None:
    config = make(method, num_steps=4, caption_dropout=0.3, ema_decay=0.9)
    sm.personalize(config)
    stopped = config.replace(output_dir=tmp_path / "stopped")
    steps: list[int] = []
    with pytest.raises(Cancelled, match="start the same again"):
        sm.personalize(
            stopped,
            progress=lambda event: steps.append(event.step) if isinstance(event, Trained) else None,
            stop=lambda: len(steps) == 1,
        )
    assert [path.name for path in stopped.output_dir.glob("step-*")] == ["step-2"]
    sm.personalize(stopped)
    ours, theirs = learnt(stopped), learnt(config)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(stopped, "loss") == logged(config, "loss")


def test_the_prior_is_a_loss_of_its_own(make: Callable[..., PersonalizeConfig], pictures: Path, tmp_path: Path) -> None:
    def first(**changes: Any) -> float:
        config = make("lora", num_steps=1, output_dir=tmp_path / str(len(list(tmp_path.iterdir()))), **changes)
        sm.personalize(config)
        return logged(config, "loss")[0]

    given = {"class_prompt": "a ball", "class_pictures": str(pictures)}
    none, whole, double = (first(**given, prior_weight=weight) for weight in (0.0, 1.0, 2.0))
    assert whole > none > 0
    assert double - none == pytest.approx(2 * (whole - none), rel=1e-4)
    assert first(**given, micro_batch_size=1) == pytest.approx(whole, rel=1e-5)


def test_a_folder_is_of_one_run(make: Callable[..., PersonalizeConfig], config: sm.TrainConfig) -> None:
    lora = make("lora", num_steps=1)
    first = personalizing(lora)
    next(first)
    with pytest.raises(FileError, match="another run is at work"):
        sm.personalize(lora)
    first.close()
    sm.personalize(lora)
    with pytest.raises(ConfigError, match="rank was 4, now 2"):
        sm.personalize(lora.replace(rank=2))
    with pytest.raises(ConfigError, match="holds a run of another kind"):
        sm.train(config.replace(output_dir=lora.output_dir))


def test_bad_input_is_named(make: Callable[..., PersonalizeConfig], tmp_path: Path) -> None:
    lora, word = make("lora"), make("textual_inversion")
    (tmp_path / "file").write_text("not a folder")
    for config, said in (
        (lora.replace(instance_prompt=None), "instance_prompt: missing; 3 of 3 pictures have no caption"),
        (lora.replace(dialects=("a1111",)), "dialects: expected diffusers or kohya for lora, got a1111"),
        (lora.replace(rank=500), "rank is 500"),
        (lora.replace(output_dir=tmp_path / "file" / "run"), "output_dir"),
        (lora.replace(model=str(tmp_path / "none.safetensors")), "none.safetensors"),
        (lora.replace(class_pictures=lora.pictures), "class_prompt: missing"),
        (word.replace(token="ball"), "token: the model knows 'ball' already"),
        (make("dreambooth", dialects=("original",), class_prompt=None), "is not CLIP's"),
    ):
        with pytest.raises(sm.StillmotionError, match=said):
            sm.personalize(config)
    for config, changes, said in (
        (lora, {"rank": 0}, "rank: expected an integer from 1"),
        (lora, {"token": TOKEN}, "token: lora learns no new word"),
        (lora, {"num_vectors": 2}, "num_vectors: there is no token"),
        (word, {"rank": 4}, "rank: textual inversion has none"),
        (word, {"token": None}, "token: missing"),
        (word, {"token": "my cat"}, "token: expected one word"),
        (word, {"initial_words": None}, "initial_words: missing"),
        (word, {"instance_prompt": "a cat"}, "instance_prompt: expected the token <glow> in it"),
        (word, {"class_prompt": "a cat"}, "class_prompt: textual inversion"),
        (make("custom_diffusion"), {"token": "glow"}, "token: expected it in <>"),
    ):
        with pytest.raises(ConfigError, match=said):
            config.replace(**changes)
    with pytest.raises(ConfigError, match="unknown key; the nearest is 'instance_prompt'"):
        PersonalizeConfig.from_dict({**lora.to_dict(), "instance_promt": "a"})
    assert not list(tmp_path.glob("*/step-*"))
