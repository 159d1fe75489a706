"""Paths that a person names: what the file system says about them, as an error that a person understands."""

from __future__ import annotations

import os

from muzero_ray.errors import ConfigError


def check_current_directory() -> None:
    """ConfigError if it was deleted: libraries ask for its name while they are imported."""
    try:
        os.getcwd()
    except OSError as error:
        raise ConfigError(
            f"the current directory is gone ({error.strerror}). Change to one that exists, then try again"
        ) from None
