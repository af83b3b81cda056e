"""Clips in: every kind of data set on disk through one interface, frames decoded exactly and by number."""

from stillmotion.data.sources.clip import ClipItem as ClipItem
from stillmotion.data.sources.clip import ClipSource as ClipSource
from stillmotion.data.sources.clip import StreamingSource as StreamingSource
from stillmotion.data.sources.clip import stream as stream
from stillmotion.data.sources.clip import without_caption as without_caption
from stillmotion.data.sources.listed import ListedSource as ListedSource
from stillmotion.data.sources.opening import open_source as open_source
from stillmotion.data.sources.quarantine import Quarantine as Quarantine
