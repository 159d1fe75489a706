"""Two hosts, and what they see of each other. A program: it makes them in the namespaces that it is started in."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chaos.hosts import Host, make_bridge
from chaos.programs import until
from tests.patience import PATIENCE

REACHES = "import socket; socket.create_connection(('10.77.0.2', 8000), 1.5)"
LISTENS = "import socket, time; s = socket.create_server(('10.77.0.2', 8000)); time.sleep(600)"


def main(folder: Path) -> list[Any]:
    """Before, with the link down, and up again; then what the death of one leaves, which was paused once."""
    make_bridge()
    one, other = Host("one", 1), Host("other", 2)
    program = other.start([sys.executable, "-c", LISTENS], {}, folder / "log")

    def reaches() -> bool:
        return subprocess.run([*one.enter(), sys.executable, "-c", REACHES], capture_output=True).returncode == 0

    seen: list[Any] = [until(reaches, PATIENCE)]
    other.link(up=False)
    seen.append(reaches())
    other.link(up=True)
    seen.append(until(reaches, PATIENCE))
    seen.append([len(host.processes("create_server")) for host in (one, other)])
    for held in other.processes():
        held.suspend()
    time.sleep(0.5)  # whoever waits for it stops as well
    for held in other.processes():
        held.resume()
    other.kill()
    seen += [program.wait(PATIENCE) != 0, other.empties(PATIENCE), reaches()]
    other.boot()
    return [*seen, other.empties(PATIENCE)]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
