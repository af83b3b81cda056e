"""The toyworld's tiny models in the standard classes: what `StableDiffusionPipeline.from_pretrained` would build."""

import json
import shutil
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from stillmotion.toyworld.language import vocabulary

TEXT_LENGTH = 20
TEXT_WIDTH = 128
LATENT_CHANNELS = 4
PICTURE_SIZE = 128
SCALING_FACTOR = 0.18215  # as Stable Diffusion's, so that code which has the number built in serves too


def make_vae() -> AutoencoderKL:
    """Return an untrained VAE: 8 times smaller, 4 channels, as Stable Diffusion's."""
    return AutoencoderKL(
        block_out_channels=(24, 48, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=PICTURE_SIZE,
        scaling_factor=SCALING_FACTOR,
    )


def make_unet() -> UNet2DConditionModel:
    """Return an untrained UNet with Stable Diffusion 1.5's four levels and block types, narrow, one layer per block."""
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // 8,
        block_out_channels=(64, 128, 128, 128),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the vocabulary into `folder` and return the tokenizer: CLIP's own class, every toyworld word one token.

    The byte-pair merges build each word from its end, where no merge of another word can come between; an unknown word
    falls into pieces, as CLIP's does.
    """
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-:;"]
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges: list[str] = []
    for word in vocabulary():
        if len(word) == 1:
            continue
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merge = f"{parts[-2]} {parts[-1]}"
            parts = [*parts[:-2], parts[-2] + parts[-1]]
            if merge not in merges:
                merges.append(merge)
                tokens.append(parts[-1])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    shutil.rmtree(folder, ignore_errors=True)  # a `tokenizer.json` of before would be read instead
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(dict.fromkeys(tokens))}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=TEXT_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIP pair; the base model's text encoder begins as its text tower."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": TEXT_WIDTH,
    }
    vision = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "projection_dim": TEXT_WIDTH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH))


def save_clip(clip: CLIPModel, folder: Path) -> None:
    """Write the pair, with its picture processor, to `clip`."""
    from transformers import CLIPImageProcessor  # noqa: PLC0415  # its import speaks of torchvision, which nothing needs

    clip.save_pretrained(folder / "clip")
    size = {"height": clip.config.vision_config.image_size, "width": clip.config.vision_config.image_size}
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(size=size, crop_size=size, image_mean=half, image_std=half).save_pretrained(folder / "clip")
    _compute_in_float32(folder / "clip" / "config.json")


def save_text_encoder(encoder: CLIPTextModel, folder: Path) -> None:
    """Write the text encoder to `text_encoder`, where pipelines look for it."""
    encoder.save_pretrained(folder / "text_encoder")
    _compute_in_float32(folder / "text_encoder" / "config.json")


def _compute_in_float32(config: Path) -> None:
    """Say so in a transformers config: half precision is for the disk, and transformers computes in what stands here."""
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "dtype": "float32"}, indent=2) + "\n")


def make_noise_schedule() -> DDIMScheduler:
    """Return the schedule that the base model is trained with: Stable Diffusion's range, linear, v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
