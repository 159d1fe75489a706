"""Games on disk as immutable chunks: whole and verified, or refused."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from muzero_ray.errors import CheckpointError
from muzero_ray.runtime.files import PLAIN_NAME, check_entry, read_verified, sync_folder, write_synced


@dataclass(frozen=True)
class ChunkRef:
    """Names one immutable chunk file: SHA-256 and size of the file, and how many games it holds.

    `dataclasses.asdict` gives its JSON form; `ChunkRef.parse` takes it back.
    """

    name: str
    sha256: str
    bytes: int
    count: int

    @staticmethod
    def parse(value: object) -> ChunkRef:
        """From untrusted JSON. Raises CheckpointError."""
        if not isinstance(value, dict) or set(value) != {"name", "sha256", "bytes", "count"}:
            raise CheckpointError(f"replay index: {str(value)[:200]!r} is no chunk reference")
        check_entry(value["name"], value["sha256"], value["bytes"], "replay index")
        if type(value["count"]) is not int or not 0 <= value["count"] <= value["bytes"]:
            raise CheckpointError(
                f"replay index: chunk {value['name']}: count={str(value['count'])[:50]} is impossible"
            )
        return ChunkRef(**value)


class ReplayStore:
    """Immutable files of encoded games in one folder, written when a checkpoint is.

    A chunk is `MZCHUNK1`, the number of games (u64), then each game's length (u64) and bytes, little-endian. Its name
    holds its hash, so writing the same games twice is harmless and a name never changes its meaning.
    """

    _MAGIC = b"MZCHUNK1"
    _SUFFIX = ".games"

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def append(self, games: Sequence[bytes], label: str = "chunk") -> ChunkRef:
        """Write one chunk durably; `label` begins its file name. Raises CheckpointError if the disk refuses."""
        parts = [self._MAGIC, struct.pack("<Q", len(games))]
        for game in games:
            parts += [struct.pack("<Q", len(game)), game]
        content = b"".join(parts)
        digest = hashlib.sha256(content).hexdigest()
        name = f"{label}-{digest[:16]}{self._SUFFIX}"
        if not PLAIN_NAME.fullmatch(name):
            raise ValueError(f"chunk label {label!r} is not a plain word (letters, digits, '.', '_', '-')")
        temporary = self.folder / f".tmp-{secrets.token_hex(6)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_synced(temporary, content)
            temporary.replace(self.folder / name)
            sync_folder(self.folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise CheckpointError(
                f"replay chunk was not written to {self.folder}: {error}. Free space there"
            ) from error
        return ChunkRef(name, digest, len(content), len(games))

    def read(self, ref: ChunkRef) -> list[bytes]:
        """The games of a chunk, after its size and hash were verified. Raises CheckpointError."""
        check_entry(ref.name, ref.sha256, ref.bytes, "replay index")
        path = self.folder / ref.name
        content = read_verified(path, ref.bytes, ref.sha256)
        games: list[bytes] = []
        offset = 16
        if content[:8] != self._MAGIC or content[8:16] != struct.pack("<Q", ref.count):
            raise CheckpointError(f"{path} is no replay chunk of {ref.count} games")
        while offset < len(content):
            length = int.from_bytes(content[offset : offset + 8], "little")
            games.append(content[offset + 8 : offset + 8 + length])
            offset += 8 + length
        if offset != len(content) or len(games) != ref.count:
            raise CheckpointError(f"{path} does not hold {ref.count} whole games")
        return games

    def prune(self, keep: Collection[str]) -> int:
        """Delete chunks whose name is not in `keep`, and leftovers of crashes. Returns how many chunks went.

        keep: the names in the replay index of every checkpoint still there, not only the newest: loading may walk back.
        """
        removed = 0
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            stale = path.name.endswith(self._SUFFIX) and path.name not in keep
            if stale or path.name.startswith(".tmp-"):
                path.unlink(missing_ok=True)
                removed += stale
        return removed
