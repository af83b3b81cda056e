"""The second text encoder of Stable Diffusion XL, OpenCLIP's bigG, from its own names and layout to transformers'.

OpenCLIP keeps the projections to queries, keys and values of a layer in one matrix, one below the other, and the last
projection transposed.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

_WHOLE = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_UNUSED = ("logit_scale",)  # scales likeness to pictures, which nothing asks for


def from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an OpenCLIP text encoder's weights under transformers' names, without "text_model."; others as they are."""
    return {name: value for original, tensor in tensors.items() for name, value in _renamed(original, tensor)}


def _renamed(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _UNUSED:
        return
    if name == "text_projection":
        yield "text_projection.weight", value.T.contiguous()
    elif not name.startswith("transformer.resblocks."):
        yield _WHOLE.get(name, name), value
    else:
        number, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        layer = f"encoder.layers.{number}"
        if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                yield f"{layer}.self_attn.{letter}_proj.{rest.rpartition('_')[2]}", part.contiguous()
        else:
            place, _, leaf = rest.rpartition(".")
            yield f"{layer}.{_IN_LAYER.get(place, place)}.{leaf}", value
