"""What counts as a token for Ray."""

from __future__ import annotations

import os
from pathlib import Path


def forget_blank_token() -> None:
    """Take blank settings for settings that are not there. Ray takes a blank token for one, and replaces the file's."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if not os.environ.get(name, "").strip():
            os.environ.pop(name, None)


def holds_token(file: Path) -> bool:
    """Whether there is more than blanks in it. One that cannot be read is Ray's to complain about."""
    try:
        return bool(file.read_bytes().strip())
    except FileNotFoundError:
        return False
    except OSError:
        return file.is_file()
