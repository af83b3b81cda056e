"""Clips on disk: written frame by frame, read back, described, and the record that travels inside them."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.data.formats import FORMATS as FORMATS
    from stillmotion.data.formats import ClipFormat as ClipFormat
    from stillmotion.data.metadata import read_metadata as read_metadata
    from stillmotion.data.reading import ClipInfo as ClipInfo
    from stillmotion.data.reading import probe as probe
    from stillmotion.data.reading import read_clip as read_clip
    from stillmotion.data.reading import read_frames as read_frames
    from stillmotion.data.sheet import SheetWriter as SheetWriter
    from stillmotion.data.sheet import contact_sheet as contact_sheet
    from stillmotion.data.video import ClipWriter as ClipWriter
    from stillmotion.data.video import WrittenClip as WrittenClip
    from stillmotion.data.video import file_name as file_name
    from stillmotion.data.video import format_of as format_of
    from stillmotion.data.video import write_clip as write_clip

NAMES = lazily(__name__)
