"""`personalize`: a subject or a style out of pictures, by one of four methods, from a YAML file or from flags."""

import argparse

import stillmotion as sm
from stillmotion.cli.parsing import Parser, add_config_flags, config_from
from stillmotion.cli.screen import Screen
from stillmotion.cli.training import follow
from stillmotion.cli.verb import Verb

METHODS = ("dreambooth", "lora", "textual-inversion", "custom-diffusion")
GROUPS = {
    "pictures": ["pictures", "instance_prompt", "trigger", "width", "height", "buckets", "horizontal_flip"],
    "models": ["model", "vae"],
    "dreambooth and lora": ["train_text_encoder", "rank", "alpha", "layers"],
    "textual-inversion and custom-diffusion": ["token", "initial_words", "num_vectors", "learns", "train_queries"],
    "class": ["class_prompt", "class_pictures", "num_class_pictures", "prior_weight"],
    "steps": [
        "num_steps",
        "batch_size",
        "micro_batch_size",
        "learning_rate",
        "warmup_steps",
        "decay_from",
        "ema_decay",
    ],
    "loss": ["caption_dropout", "snr_gamma", "timestep_bias", "noise_offset"],
    "output": ["output_dir", "checkpoint_every", "validate_every", "sample_every", "sample_prompts", "dialects"],
    "machine": ["device", "precision", "gradient_checkpointing", "num_workers"],
}


def _personalize_arguments(parser: Parser) -> None:
    parser.add_argument("method", choices=METHODS, help="What is trained.")
    shorts = {"output_dir": "-o", "num_steps": "-s", "pictures": "-p"}
    add_config_flags(parser, sm.PersonalizeConfig, groups=GROUPS, shorts=shorts)


def _personalize(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.t2i.quiet import hide_loading_bars
    from stillmotion.training import personalizing

    arguments.method = arguments.method.replace("-", "_")
    config = config_from(sm.PersonalizeConfig, arguments)
    hide_loading_bars()
    return follow(screen, lambda stop: personalizing(config, stop=stop), config.output_dir, "pictures")


VERBS = {
    "personalize": Verb(
        description="Teach an image model a subject or a style from a few pictures: dreambooth trains the whole UNet, lora "
        "a small file beside it, textual-inversion one new word, custom-diffusion keys and values with a word. What comes out "
        "is read by `stillmotion animate`, diffusers and ComfyUI. Stopped at any moment, the same command goes on exactly "
        "where the run stood.",
        add_arguments=_personalize_arguments,
        run=_personalize,
    ),
}
