"""The four methods as data: what each takes by default, and what it is written as."""

from dataclasses import dataclass

from stillmotion.errors import ConfigError
from stillmotion.training.personalization.config import MethodName, PersonalDialect, PersonalizeConfig


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to personalise a model; its values are those of diffusers' training examples at a batch of one."""

    name: MethodName
    num_steps: int
    learning_rate: float
    dialects: tuple[PersonalDialect, ...]
    """What it can be written as."""
    written: tuple[PersonalDialect, ...]
    """What it is written as by default."""

    def settled(self, config: PersonalizeConfig) -> PersonalizeConfig:
        """Return the config with this method's own values where none are given; sizes are the model's to say.

        Raises `ConfigError` for a dialect that it has not.
        """
        if unknown := [name for name in config.dialects or () if name not in self.dialects]:
            said = f"expected {' or '.join(self.dialects)} for {self.name.replace('_', ' ')}"
            raise ConfigError(f"dialects: {said}, got {unknown[0]}")
        rate = self.learning_rate * (0.4 if self.name == "dreambooth" and config.train_text_encoder else 1.0)
        rank = (config.rank or 16) if self.name == "lora" else None
        words = config.initial_words or ("ktn" if config.token else None)  # a word that says nothing
        own = {
            "num_steps": self.num_steps,
            "learning_rate": rate,
            "ema_decay": 0.0,
            "rank": rank,
            "alpha": float(rank) if rank else None,
            "initial_words": words,
            "trigger": config.token or config.instance_prompt or _called(config.pictures),
            "dialects": self.written,
        }
        return config.replace(**{name: value for name, value in own.items() if getattr(config, name) is None})


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="dreambooth",
            num_steps=800,
            learning_rate=5e-6,
            dialects=("diffusers", "original"),
            written=("diffusers",),
        ),
        Method(
            name="lora",
            num_steps=1000,
            learning_rate=1e-4,
            dialects=("diffusers", "kohya"),
            written=("diffusers", "kohya"),
        ),
        Method(
            name="textual_inversion",
            num_steps=3000,
            learning_rate=5e-4,
            dialects=("diffusers", "a1111"),
            written=("diffusers", "a1111"),
        ),
        Method(
            name="custom_diffusion",
            num_steps=500,
            learning_rate=2e-5,
            dialects=("diffusers",),
            written=("diffusers",),
        ),
    )
}


def _called(pictures: str) -> str | None:
    """Return what calls up a style of the toyworld, as its captions begin; None for any other pictures."""
    name, _, style = (*pictures.split(":", 2), "", "")[:3]
    return f"a {style} cartoon of" if name == "toyworld" and style else None
