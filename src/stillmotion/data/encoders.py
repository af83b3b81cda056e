"""One encoder per clip format: frames in one at a time, memory that does not grow with the clip."""

import tempfile
import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stillmotion.data import metadata as embedded

_BT709 = 1  # the code of BT.709 in every FFmpeg colour enum; also of limited range in `color_range`
_GIF_TICKS = 100  # a GIF's delays count hundredths of a second
_GIF_SHORTEST = 2  # browsers play a delay of 0 or 1 hundredths as 10
_PALETTE_FRAMES, _PALETTE_PIXELS = 64, 4096  # what the palette of a GIF is drawn from, at most


@runtime_checkable
class Encoder(Protocol):
    """Takes the frames of one clip."""

    fps: float
    """The rate that the written file really plays at; final after `close`."""
    note: str
    """What the user should know of the file; empty if nothing."""

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...

    def discard(self) -> None:
        """Let go of everything; the file is left unfinished."""
        ...


class _Codec(NamedTuple):
    name: str
    pixels: str
    options: dict[str, str]
    container: dict[str, str]


_CODECS = {
    "mp4": _Codec("libx264", "yuv420p", {"crf": "18", "preset": "medium"}, {"movflags": "+faststart"}),
    "webm": _Codec("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4"}, {}),
    "webp": _Codec("libwebp_anim", "bgra", {"quality": "90", "compression_level": "4"}, {"loop": "0"}),
}


class ContainerEncoder:
    """MP4 (H.264), WebM (VP9) and animated WebP through FFmpeg, colours tagged as BT.709."""

    def __init__(self, path: Path, kind: str, size: tuple[int, int], fps: float, record: Mapping[str, Any]) -> None:
        codec, (height, width) = _CODECS[kind], size
        pixels, self.note = codec.pixels, ""
        if kind == "mp4" and (height % 2 or width % 2):
            # 4:2:0 H.264 has even sizes only. Full chroma keeps every pixel; scaling or cropping would not.
            pixels, self.note = "yuv444p", f"odd size {width}x{height}: full chroma, which some players refuse"
        self.fps, self._path, self._kind, self._record = fps, path, kind, record
        self._container = av.open(str(path), "w", format=kind, options=codec.container)
        self._container.metadata["comment"] = embedded.to_text(record)
        rate = Fraction(fps).limit_denominator(1001)
        self._stream: av.VideoStream = self._container.add_stream(codec.name, rate=rate, options=codec.options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pixels
        if pixels.startswith("yuv"):
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = context.color_range = _BT709

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        pixels = self._stream.pix_fmt
        colours = {"dst_colorspace": _BT709} if pixels and pixels.startswith("yuv") else {}
        self._container.mux(self._stream.encode(picture.reformat(format=pixels, **colours)))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode())
        self._container.close()
        if self._kind == "webp":
            embedded.add_to_webp(self._path, self._record, (self._stream.height, self._stream.width))

    def discard(self) -> None:
        """Let go of everything; the file is left unfinished."""
        self._container.close()


class GifEncoder:
    """GIF with one palette for the whole clip, endlessly looping.

    The palette needs every frame before the first is written, so frames wait, packed, in a file beside the clip. A GIF
    counts hundredths of a second: delays alternate (12, 13, …) so that the clip as a whole keeps its rate.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float, record: Mapping[str, Any]) -> None:
        self.fps, self.note = min(fps, _GIF_TICKS / _GIF_SHORTEST), ""
        if fps > self.fps:
            self.note = f"a GIF plays at most {self.fps:g} frames per second, not {fps:g}"
        self._path, self._size, self._record = path, size, record
        self._waiting = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - lives as long as the encoder
        self._lengths: list[int] = []
        self._sample: list[np.ndarray] = []
        self._sample_every = 1

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        if len(self._lengths) % self._sample_every == 0:
            step = max(1, round((frame.shape[0] * frame.shape[1] / _PALETTE_PIXELS) ** 0.5))
            self._sample.append(frame[::step, ::step].reshape(-1, 3).copy())
            if len(self._sample) > _PALETTE_FRAMES:
                self._sample, self._sample_every = self._sample[::2], 2 * self._sample_every
        packed = zlib.compress(frame.tobytes(), 1)
        self._lengths.append(len(packed))
        self._waiting.write(packed)

    def close(self) -> None:
        """Choose the palette, write the file."""
        seen = Image.fromarray(np.concatenate(self._sample)[None])
        # Refined until fewer than one colour in twenty changes its place: more takes seconds and shows nothing.
        palette = seen.quantize(255, method=Image.Quantize.MEDIANCUT, kmeans=seen.width // 20)
        starts = [round(_GIF_TICKS * index / self.fps) for index in range(len(self._lengths))]
        last = max(_GIF_SHORTEST, round(_GIF_TICKS / self.fps))
        with av.open(str(self._path), "w", format="gif", options={"loop": "0", "final_delay": str(last)}) as container:
            stream: av.VideoStream = container.add_stream("gif", rate=_GIF_TICKS)
            stream.height, stream.width = self._size
            stream.pix_fmt = "pal8"
            stream.time_base = stream.codec_context.time_base = Fraction(1, _GIF_TICKS)
            for start, frame in zip(starts, self._frames(), strict=True):
                picture = _indexed(frame, palette)
                picture.pts, picture.time_base = start, Fraction(1, _GIF_TICKS)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        self.fps = _GIF_TICKS * len(starts) / (starts[-1] + last)
        self._waiting.close()
        embedded.add_to_gif(self._path, self._record)

    def discard(self) -> None:
        """Let go of everything; the file is left unfinished."""
        self._waiting.close()

    def _frames(self) -> Iterator[np.ndarray]:
        self._waiting.seek(0)
        for length in self._lengths:
            raw = zlib.decompress(self._waiting.read(length))
            yield np.frombuffer(raw, np.uint8).reshape(*self._size, 3)


class FolderEncoder:
    """PNG frames `00000.png`, `00001.png`, … in a folder, each with the clip's record in its text."""

    def __init__(self, path: Path, fps: float, record: Mapping[str, Any]) -> None:
        self.fps, self.note = fps, ""
        self._path, self._text, self._count = path, PngInfo(), 0
        self._text.add_text(embedded.KEY, embedded.to_text({**record, "fps": fps}))
        if isinstance(record.get("parameters"), str):  # what image sites and web UIs read
            self._text.add_itxt("parameters", record["parameters"])
        path.mkdir()

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        picture = Image.fromarray(np.ascontiguousarray(frame))
        picture.save(self._path / f"{self._count:05d}.png", pnginfo=self._text)
        self._count += 1

    def close(self) -> None:
        """Finish: every frame is already written."""

    def discard(self) -> None:
        """Let go of everything; there is nothing open."""


def _indexed(frame: np.ndarray, palette: Image.Image) -> av.VideoFrame:
    """Return the frame as indices into the palette, with its colours as FFmpeg wants them (alpha first)."""
    indices = Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    colours = np.asarray(palette.getpalette(), np.uint8).reshape(-1, 3)[:255]
    table = np.zeros((256, 4), np.uint8)
    table[: len(colours), 0] = 255
    table[: len(colours), 1:] = colours
    return av.VideoFrame.from_ndarray((np.asarray(indices), table), format="pal8")
