"""What can be said about a personalisation. The command line, YAML and Python read their fields here."""

from dataclasses import dataclass
from typing import Annotated, Literal

from stillmotion.config import Limits
from stillmotion.training.run_config import RunConfig

MethodName = Literal["dreambooth", "lora", "textual_inversion", "custom_diffusion"]
PersonalDialect = Literal["diffusers", "original", "kohya", "a1111"]


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig(RunConfig):
    """One personalisation: by which method, from which pictures, with what words, how long, and where it goes."""

    method: MethodName
    """What is trained: dreambooth (the whole UNet), lora, textual_inversion (a word) or custom_diffusion (keys and values)."""

    pictures: Annotated[str, Limits(blank=False)]
    """The pictures: a folder, each with a text beside it or not, one with a metadata table, or "toyworld:COUNT:STYLE"."""

    instance_prompt: Annotated[str | None, Limits(blank=False)] = None
    """One prompt for all pictures, in place of their own captions: "a photo of sks dog"."""

    trigger: Annotated[str | None, Limits(blank=False)] = None
    """What a prompt must say to call it up, written into the files; the token or the instance prompt by default."""

    token: Annotated[str | None, Limits(blank=False)] = None
    """The new word of textual inversion and Custom Diffusion: "<my-cat>"."""

    num_vectors: Annotated[int, Limits(minimum=1, maximum=75)] = 1
    """How many vectors the new word has."""

    initial_words: Annotated[str | None, Limits(blank=False)] = None
    """Known words that the new one begins as, its vectors taking them in turn: "cat"."""

    learns: Literal["object", "style"] = "object"
    """What the new word stands for: where there are no captions it is put into sentences about one or the other."""

    rank: Annotated[int | None, Limits(minimum=1, maximum=1024)] = None
    """Rank of the LoRA; 16 by default."""

    alpha: Annotated[float | None, Limits(minimum=0)] = None
    """What the LoRA's updates are multiplied by, over the rank; the rank by default."""

    layers: Literal["attention", "transformer"] = "attention"
    """What of the UNet gets a LoRA: its attention, or the feed-forward layers of its transformers too."""

    train_queries: bool = False
    """Whether Custom Diffusion also trains queries and outputs of cross-attention, as for faces."""

    train_text_encoder: bool = False
    """Whether DreamBooth or the LoRA also trains the text encoder."""

    class_prompt: Annotated[str | None, Limits(blank=False)] = None
    """What pictures of the class show, "a photo of a dog"; with it, or with class pictures, the prior is preserved."""

    class_pictures: Annotated[str | None, Limits(blank=False)] = None
    """Pictures of the class, as for pictures; made by the model from the class prompt by default."""

    num_class_pictures: Annotated[int, Limits(minimum=1)] = 100
    """How many pictures of the class are made."""

    prior_weight: Annotated[float, Limits(minimum=0)] = 1.0
    """What the error on pictures of the class is multiplied by."""

    width: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
    """Width in pixels; what the model was made for by default."""

    height: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
    """Height in pixels; as the width by default."""

    buckets: bool = False
    """Whether pictures keep about their own shape, from 1:2 to 2:1, at the area of width and height."""

    horizontal_flip: bool = False
    """Whether pictures are mirrored half of the time; refused where captions would lie."""

    batch_size: Annotated[int, Limits(minimum=1)] = 1
    """Pictures of an optimizer step; as many of the class come beside them."""

    caption_dropout: Annotated[float, Limits(minimum=0, maximum=1)] = 0.0
    """Share of pictures whose caption is left empty."""

    checkpoint_every: Annotated[int, Limits(minimum=1)] = 500
    """Steps between checkpoints; the newest two are kept."""

    dialects: tuple[PersonalDialect, ...] | None = None
    """What is written: diffusers' layout, DreamBooth as original (one file) too, a LoRA as kohya, a word as a1111."""

    @property
    def preserves_prior(self) -> bool:
        """Return whether pictures of the class are learnt beside the others."""
        return self.class_prompt is not None or self.class_pictures is not None

    def check(self) -> None:
        """Refuse what only several fields together make wrong."""
        method = self.method
        lora, tokens = method == "lora", method in ("textual_inversion", "custom_diffusion")
        inversion, custom = method == "textual_inversion", method == "custom_diffusion"
        said = f"{method.replace('_', ' ')}"
        tokenless = self.token is None
        self.refuse(
            (not lora and self.rank is not None, f"rank: {said} has none; leave it out"),
            (not lora and self.alpha is not None, f"alpha: {said} has none; leave it out"),
            (not lora and self.layers != "attention", f"layers: {said} has its own; leave it out"),
            (lora and self.alpha == 0, "alpha: expected a number above 0, got 0; nothing would be learnt"),
            (not custom and self.train_queries, "train_queries: Custom Diffusion alone does; leave it out"),
            (tokens and self.train_text_encoder, f"train_text_encoder: {said} keeps it frozen; leave it out"),
            (not tokens and self.token, f"token: {said} learns no new word; leave it out"),
            (
                custom and self.token and not (self.token.startswith("<") and self.token.endswith(">")),
                f"token: expected it in <>, since programs look for its file so, got {self.token!r}",
            ),
            (inversion and tokenless, "token: missing; expected the new word, for example <my-cat>"),
            (self.token and len(self.token.split()) != 1, f"token: expected one word, got {self.token!r}"),
            (
                tokenless and self.initial_words,
                "initial_words: there is no token that they could begin; leave them out",
            ),
            (tokenless and self.num_vectors > 1, "num_vectors: there is no token that could have them; leave it out"),
            (
                inversion and self.initial_words is None,
                "initial_words: missing; expected the words that the new one begins as, for example cat",
            ),
            (
                self.token and self.instance_prompt and self.token not in self.instance_prompt,
                f"instance_prompt: expected the token {self.token} in it, got {self.instance_prompt!r}",
            ),
            (
                inversion and self.preserves_prior,
                "class_prompt: textual inversion forgets nothing; leave the class out",
            ),
        )
