"""What each method puts into an image model and trains, and how that is written."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.checkpoints.writing import write_pickle, write_tensors
from stillmotion.t2i import T2I
from stillmotion.t2i.prompts import Reader
from stillmotion.training.clips import texts_of
from stillmotion.training.personalization.config import PersonalizeConfig
from stillmotion.training.personalization.custom_diffusion import NewAttention, new_attention
from stillmotion.training.personalization.lora import LoraAtWork, lora_tensors, new_lora
from stillmotion.training.personalization.tokens import NewWord, new_word
from stillmotion.training.personalization.whole_model import require_one_file, save_folder, save_single_file
from stillmotion.training.work import DTYPES

Metadata = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """An image model with something in it that learns."""

    module: nn.Module
    """Holds the parameters that are trained; no other needs a gradient."""
    texts: Callable[[Sequence[str]], Float[Tensor, "batch tokens features"]]
    """Returns text features, with gradients where text is what learns."""
    write: Callable[[Path, Metadata], tuple[Path, ...]]
    """Writes what was learnt into a folder, in every dialect asked for."""


@contextmanager
def learning(config: PersonalizeConfig, t2i: T2I) -> Iterator[Learning]:
    """Put in what the method trains; afterwards it is out again, and all but DreamBooth's models are what they were.

    Raises `ConfigError` or `MismatchError` where the token, the rank or a dialect does not fit the model.
    """
    make = {
        "dreambooth": _dreambooth,
        "lora": _lora,
        "textual_inversion": _textual_inversion,
        "custom_diffusion": _custom_diffusion,
    }[config.method]
    with ExitStack() as stack:
        if config.gradient_checkpointing:
            t2i.unet.enable_gradient_checkpointing()
            stack.callback(t2i.unet.disable_gradient_checkpointing)
        yield make(config, t2i, stack)


def _dreambooth(config: PersonalizeConfig, t2i: T2I, stack: ExitStack) -> Learning:
    """DreamBooth (Ruiz et al. 2023): the whole UNet, perhaps the text encoder."""
    if "original" in _dialects(config):
        require_one_file(t2i)
    parts: dict[str, nn.Module] = {"unet": t2i.unet}
    if config.train_text_encoder:
        parts["text_encoder"] = t2i.text_encoder
    for part in parts.values():
        part.float().requires_grad_(requires_grad=True)
        stack.callback(part.requires_grad_, requires_grad=False)

    def write(folder: Path, metadata: Metadata) -> tuple[Path, ...]:
        dtype = DTYPES[config.save_dtype]
        writers = {
            "diffusers": lambda: save_folder(t2i, folder / "dreambooth", dtype=dtype, metadata=metadata),
            "original": lambda: save_single_file(
                t2i, folder / "dreambooth.safetensors", dtype=dtype, metadata=metadata
            ),
        }
        return tuple(writers[dialect]() for dialect in _dialects(config))

    texts = live_texts(t2i) if config.train_text_encoder else texts_of(t2i)
    return Learning(module=nn.ModuleDict(parts), texts=texts, write=write)


def _lora(config: PersonalizeConfig, t2i: T2I, stack: ExitStack) -> Learning:
    """A LoRA (Hu et al. 2022) of the UNet's attention, perhaps of the text encoder's."""
    assert config.rank is not None  # settled
    assert config.alpha is not None
    lora = stack.enter_context(
        new_lora(
            t2i,
            rank=config.rank,
            alpha=config.alpha,
            seed=config.seed,
            layers=config.layers,
            text=config.train_text_encoder,
        )
    )

    def write(folder: Path, metadata: Metadata) -> tuple[Path, ...]:
        return tuple(_lora_file(lora, dialect, folder, metadata, config) for dialect in _dialects(config))

    texts = live_texts(t2i) if config.train_text_encoder else texts_of(t2i)
    return Learning(module=lora.module, texts=texts, write=write)


def _lora_file(lora: LoraAtWork, dialect: str, folder: Path, metadata: Metadata, config: PersonalizeConfig) -> Path:
    name = "lora-kohya.safetensors" if dialect == "kohya" else "lora.safetensors"
    told = dict(metadata)
    if dialect == "kohya":  # what kohya's own trainer says, and other programs show
        told |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(config.rank),
            "ss_network_alpha": f"{config.alpha:g}",
            "ss_base_model_version": "sd_v1",
            "ss_tag_frequency": json.dumps({"pictures": {config.trigger or "": 1}}),
        }
    return write_tensors(folder / name, lora_tensors(lora, dialect, DTYPES[config.save_dtype]), told, overwrite=True)


def _textual_inversion(config: PersonalizeConfig, t2i: T2I, stack: ExitStack) -> Learning:
    """Textual inversion (Gal et al. 2022): the vectors of one new word."""
    word = _word(config, t2i, stack)
    assert word is not None

    def write(folder: Path, metadata: Metadata) -> tuple[Path, ...]:
        rows, stem = _rows(word), folder / word.token.strip("<>")
        files: list[Path] = []
        if "diffusers" in _dialects(config):
            path = folder / "learned_embeds.safetensors"
            files.append(write_tensors(path, {word.token: rows}, metadata, overwrite=True))
        if "a1111" in _dialects(config):  # whose programs call a word by the name of its file
            files.append(_a1111_pickle(word, stem.with_name(f"{stem.name}.pt"), metadata))
            path = stem.with_name(f"{stem.name}.safetensors")
            files.append(write_tensors(path, {"emb_params": rows}, metadata, overwrite=True))
        return tuple(files)

    module = nn.ParameterDict({"rows": word.rows})
    return Learning(module=module, texts=live_texts(t2i), write=write)


def _a1111_pickle(word: NewWord, path: Path, metadata: Metadata) -> Path:
    """Write a word as AUTOMATIC1111's program does, with a name and the step."""
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": _rows(word)},
        "name": word.token,
        "step": int(json.loads(metadata["training"])["step"]),
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }
    return write_pickle(path, content, overwrite=True)


def _custom_diffusion(config: PersonalizeConfig, t2i: T2I, stack: ExitStack) -> Learning:
    """Custom Diffusion (Kumari et al. 2023): keys and values of cross-attention, and the vectors of a new word."""
    attention = stack.enter_context(new_attention(t2i.unet, queries=config.train_queries))
    word = _word(config, t2i, stack)
    parts: dict[str, nn.Module] = {"attention": attention.module}
    if word is not None:
        parts["word"] = nn.ParameterDict({"rows": word.rows})

    def write(folder: Path, metadata: Metadata) -> tuple[Path, ...]:
        return _custom_files(attention, word, folder / "custom_diffusion", DTYPES[config.save_dtype], metadata)

    texts = live_texts(t2i) if word is not None else texts_of(t2i)
    return Learning(module=nn.ModuleDict(parts), texts=texts, write=write)


def _custom_files(
    attention: NewAttention, word: NewWord | None, folder: Path, dtype: torch.dtype, metadata: Metadata
) -> tuple[Path, ...]:
    """Write diffusers' folder: the weights and a file named as the word.

    The weights come as a pickle too: diffusers' own loader needs the empty entries, which no safetensors file can hold.
    """
    stem = folder / "pytorch_custom_diffusion_weights"
    files = [
        write_tensors(stem.with_suffix(".safetensors"), attention.tensors(dtype), metadata, overwrite=True),
        write_pickle(stem.with_suffix(".bin"), attention.whole(dtype), overwrite=True),
    ]
    if word is not None:
        rows = {word.token: _rows(word)}
        files.append(write_tensors(folder / f"{word.token}.safetensors", rows, metadata, overwrite=True))
    return tuple(files)


def _word(config: PersonalizeConfig, t2i: T2I, stack: ExitStack) -> NewWord | None:
    if config.token is None:
        return None
    assert config.initial_words is not None  # settled
    return stack.enter_context(new_word(t2i, config.token, config.num_vectors, config.initial_words))


def _rows(word: NewWord) -> Float[Tensor, "vectors features"]:
    """Return a word's vectors, always in float32: they are few."""
    return word.rows.detach().cpu().float().clone()


def _dialects(config: PersonalizeConfig) -> tuple[str, ...]:
    assert config.dialects is not None  # settled
    return config.dialects


def live_texts(t2i: T2I) -> Callable[[Sequence[str]], Float[Tensor, "batch tokens features"]]:
    """Return a function that gives text features as the encoder stands, with gradients."""

    def features(captions: Sequence[str]) -> Tensor:
        reader = Reader(t2i.text_encoder)
        return reader.read(t2i.words.rows(captions, reader.length))

    return features
