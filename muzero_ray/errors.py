"""Errors a user can act on. Each message names the setting or thing, its value, the reason and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager


class MuZeroRayError(Exception):
    """Base of every error this project raises on purpose; `exit_code` is what `launch.py` ends with."""

    exit_code = 1


class ConfigError(MuZeroRayError):
    """A setting, argument or file the user gave cannot be used."""

    exit_code = 2


class EnvironmentFault(MuZeroRayError):
    """An environment broke its contract (wrong dtype, shape, NaN, action out of range) or raised."""

    exit_code = 3


class NumericsError(MuZeroRayError):
    """Losses or gradients stayed non-finite."""

    exit_code = 4


class PeerLost(Exception):
    """A process that trains in step with this one is gone, hangs, or went another way: this one is of no more use.

    No mistake of the user's: all of them are replaced.
    """


class CheckpointError(MuZeroRayError):
    """A checkpoint is missing, damaged, or belongs to another network."""


def in_one_line(error: object) -> str:
    """The text of a library's error in one line of at most 300 characters, to be quoted in a message."""
    return " ".join(str(error).split())[:300]


@contextmanager
def as_checkpoint_error(what: str) -> Iterator[None]:
    """CheckpointError for whatever a damaged or forged `what` sets off in the code that takes it over.

    A context manager, or a decorator of that code.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{what} is damaged: {error!r}") from error
