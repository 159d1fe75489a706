"""What the parts of a run have to say about this machine, once in each process."""

from __future__ import annotations

import logging
from functools import lru_cache

logger = logging.getLogger(__name__)


@lru_cache
def say_once(message: str) -> None:
    """Log a warning, unless it was logged before: every part of a run makes its own engine."""
    logger.warning(message)
