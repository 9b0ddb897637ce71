"""Named recipes: values for several flags at once, chosen with --preset; flags given beside it win."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "default": {},
    "large": {},
}
