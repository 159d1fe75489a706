"""Ray's folders on this machine: that of a private Ray, and the one in which it is written which cluster there is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from muzero_ray.errors import ConfigError
from muzero_ray.private_folder import NAME_BYTES, temporary_folder, usable_folder

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path that a Unix socket can have."""

SOCKET_NAME_BYTES = len("/r/session_2026-11-30_08-29-29_123456_1234567/sockets/plasma_store")
"""What Ray adds to the path of its folder, for its longest name of a socket and the longest process id."""


def folder_for_sockets() -> tuple[Path, str | None]:
    """Where a private Ray's folder is made, and what to tell a person if that is not where Ray has its files otherwise.

    It is RAY_TMPDIR, or where temporary files go; elsewhere if that path is too long for sockets in it. Raises
    ConfigError if there is no such place.
    """
    named = os.environ.get("RAY_TMPDIR")
    wanted = Path(named).resolve() if named else temporary_folder()
    most = SOCKET_BYTES - SOCKET_NAME_BYTES - NAME_BYTES
    folder, reason = usable_folder("RAY_TMPDIR" if named else "TMPDIR", wanted, most)
    return folder, f"Ray keeps its files in {folder}, since {reason}" if reason else None


def refuse_others_address(file: Path) -> None:
    """ConfigError if another user wrote `file`, in which Ray looks up what `--address auto` is.

    It is in a folder that Ray opens to everybody; and who joins a cluster shows it the token.
    """
    try:
        owner = file.lstat().st_uid
    except OSError:  # Ray says that there is no cluster
        return
    if owner not in (0, os.geteuid()):
        raise ConfigError(
            f"run.address=auto: {file}, where Ray notes which cluster there is, belongs to another user (uid {owner}), "
            "who could have named any. Give the head node's address: --address HOST:6379"
        )
