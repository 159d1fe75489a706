"""Where a private Ray keeps its files, and whether the file that `--address auto` reads can be trusted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from muzero_ray.errors import ConfigError
from muzero_ray.private_folder import NAME_BYTES, temporary_folder, usable_folder

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The most bytes that the path of a Unix socket may have."""

SOCKET_NAME_BYTES = len("/r/session_2026-11-30_08-29-29_123456_1234567/sockets/plasma_store")
"""Bytes of the longest path of a socket below the private folder. Ray adds all of it but `/r` (see `start_private`)."""


def folder_for_sockets() -> tuple[Path, str | None]:
    """The folder in which to make a private Ray's folder, and a message for the user if it is not the usual one.

    The usual one is RAY_TMPDIR, or else the folder for temporary files. If it cannot be used, or its path is too long
    for sockets, another one is taken. Raises ConfigError if there is none.
    """
    ray_tmpdir = os.environ.get("RAY_TMPDIR")
    wanted = Path(ray_tmpdir).resolve() if ray_tmpdir else temporary_folder()
    longest = SOCKET_BYTES - SOCKET_NAME_BYTES - NAME_BYTES
    folder, reason = usable_folder("RAY_TMPDIR" if ray_tmpdir else "TMPDIR", wanted, longest)
    return folder, f"Ray keeps its files in {folder}, since {reason}" if reason else None


def refuse_address_file_of_others(file: Path) -> None:
    """Raise ConfigError if another user owns `file`, from which Ray reads the address behind `--address auto`.

    Every user can write to its folder, and whoever joins a cluster shows it the token.
    """
    try:
        owner = file.lstat().st_uid
    except OSError:  # Ray itself then says that no cluster was found
        return
    if owner not in (0, os.geteuid()):
        raise ConfigError(
            f"run.address=auto: {file}, from which Ray reads the cluster's address, belongs to another user (uid "
            f"{owner}), who could have written any address into it. Give the head node's: --address HOST:6379"
        )
