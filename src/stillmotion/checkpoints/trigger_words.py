"""Words that a LoRA listens for, as far as its file tells.

`modelspec.trigger_phrase` says them (github.com/Stability-AI/ModelSpec). kohya's trainer only counts the tags of the
pictures (`ss_tag_frequency`, by folder): a tag that every picture has is what the subject was called.
"""

import json
from collections.abc import Mapping
from typing import Any

MOST = 4
"""More tags than these in every picture say nothing: the pictures were simply alike."""


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words, those that were meant to be said before those that were counted; empty where nothing tells."""
    phrase = metadata.get("modelspec.trigger_phrase", "").strip()
    if phrase:
        return tuple(dict.fromkeys(word for part in phrase.split(",") if (word := part.strip())))
    found: list[str] = []
    folders = _mapping(metadata.get("ss_tag_frequency"))
    for counts in folders.values():
        if not isinstance(counts, dict):
            continue
        known = {str(tag): count for tag, count in counts.items() if isinstance(count, int)}
        most = max(known.values(), default=0)
        everywhere = [tag.strip() for tag, count in known.items() if count == most and tag.strip()]
        found += everywhere if len(everywhere) <= MOST else []
    return tuple(dict.fromkeys(found))


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
