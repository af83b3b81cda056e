"""A control in one line of text: what it says, that it comes back the same, and what is wrong in it by name."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from stillmotion.config import Config, ControlFile, from_dict, to_dict
from stillmotion.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Steered(Config):
    controls: tuple[ControlFile, ...] = ()


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("depth.pth=hand.mp4", {"path": "depth.pth", "source": "hand.mp4"}),
        ("cn.pth=d.mp4:0.8@canny@0-0.5", {"strength": 0.8, "preprocessor": "canny", "start": 0.0, "end": 0.5}),
        (r"C:\v3.ckpt=D:\keys:2@frames:0,8,-1", {"path": r"C:\v3.ckpt", "source": r"D:\keys", "frames": (0, 8, -1)}),
        ("a==b@@c.pth=x=y@@z@depth:m@@d", {"path": "a=b@c.pth", "source": "x=y@z", "preprocessor": "depth:m@d"}),
        ("ip.bin=me.png@image_encoder:clip", {"image_encoder": "clip"}),
        ("rgb.ckpt:0", {"source": None, "strength": 0.0}),
    ],
)
def test_control_text(text: str, fields: dict[str, Any]) -> None:
    control = ControlFile.from_text(text)
    assert {name: getattr(control, name) for name in fields} == fields
    assert ControlFile.from_text(str(control)) == control
    assert from_dict(ControlFile, json.loads(json.dumps(to_dict(control)))) == control


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.pth=b@cany", r"controls\.0\.options: expected one of canny, .*got 'cany'; the nearest is canny; .* @@"),
        ("a.pth=", r"controls\.0\.source: expected a video"),
        ("a.pth=b@0.5-0.2", r"controls\.0\.start: expected a share of the steps .* got 0.5-0.2"),
        ("a.pth=b.mp4:inf", r"controls\.0\.strength: expected a finite number, got inf"),
        ("a.pth=b@frames:0,x", r"controls\.0\.frames: expected numbers as 0,8,15, got '0,x'"),
        ("a.pth=b@canny@none", r"controls\.0\.preprocessor: said twice"),
        ("=b", r"controls\.0\.path: expected the file of a control model"),
    ],
)
def test_control_text_that_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Steered(controls=text)  # type: ignore[arg-type]
