"""The config of a clip: every field explained, YAML as the design writes it."""

from pathlib import Path

from stillmotion.animate import AnimateConfig
from stillmotion.config import AdapterFile, settings


def test_every_field_has_its_sentence() -> None:
    for setting in settings(AnimateConfig):
        assert setting.sentence.endswith("."), setting.name
        assert len(setting.sentence) < 140, setting.name


def test_yaml_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "scene.yaml"
    path.write_text(
        """
prompt: a corgi running
model: toonyou.safetensors
motion: v3_sd15_mm.ckpt
motion_loras: [v3_lora_ZoomIn.ckpt:0.8, pan.ckpt]
domain_adapter: v3_sd15_adapter.ckpt
width: 512
height: 512
guidance_scale: 7
formats: webp
seed: 10788741199826055526
""",
        encoding="utf-8",
    )
    config = AnimateConfig.from_yaml(path, ["num_frames=24", "output_dir=outputs"])
    assert config.motion_loras == (AdapterFile("v3_lora_ZoomIn.ckpt", 0.8), AdapterFile("pan.ckpt"))
    assert config.domain_adapter == AdapterFile("v3_sd15_adapter.ckpt")
    assert (config.seed, config.formats, config.num_frames) == (10788741199826055526, ("webp",), 24)
    assert config.output_dir == Path("outputs") and config.guidance_scale == 7.0
    assert AnimateConfig.from_dict(config.to_dict()) == config


def test_only_the_prompt_is_needed() -> None:
    config = AnimateConfig(prompt="a red ball rolling right")
    assert config.output_dir is None and config.model == "toyworld" and config.seed is None
    assert [setting.name for setting in settings(AnimateConfig) if setting.required] == ["prompt"]
