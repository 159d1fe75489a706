"""Ray on hosts of this machine, started as an administrator starts it, and a run on it as a person starts that."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import Popen

from chaos.hosts import Host
from chaos.jobs import Broken
from chaos.programs import Program, until

PORT = 6379

RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--block")

STORE = 100 << 20
"""Bytes of an object store."""

LOOKOUT = """
import json, time, ray
ray.init(address="auto", namespace="lookout", log_to_driver=False)
before = None
while True:
    alive = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
    if alive != before:
        print(json.dumps([time.monotonic(), alive]), flush=True)
        before = alive
    time.sleep(0.2)
"""
"""A driver on the head that does nothing but look which nodes are alive."""

SETUP_SECONDS = 180.0

STARTS = 6
"""How often Ray is started on a host before it is given up."""

CPUS, HEAD_CPUS = 2, 1
"""A host that joins has places for two self-play actors, the head for one beside learner and evaluator."""

OPTIONS = (
    *("--run.wandb", "disabled", "--minutes", 600, "--iterations", 10**8, "--run.checkpoint-steps", 200),
    *("--simulations", 8, "--max-moves", 100, "--network.hidden", 16, "--learner.batch-size", 32),
    *("--replay.min-size", 128, "--replay.capacity", 10**7, "--replay.samples-per-insert", 2),
    *("--actors", 4, "--actors.num-cpus", 0.7, "--learner.cpus", 0.2, "--actors.rollout-steps", 400),
    *("--replay.segment-length", 20, "--learner.td-steps", 5),
    *("--evaluation.interval-steps", 10**8, "--evaluation.final-episodes", 2),
)
"""Options of the run. One place for self-play is free while all hosts are there, and one actor waits for a place
without one of them: of what a lost host held, something starts elsewhere at once, and something on the next host that
joins. There is room for all games, so what is missing in the end was lost. Self-play never waits for the learner, and
pushes often: at any moment something is on its way to replay.
"""


class Cluster:
    """Ray on a head and on what joins it, under one token; everything that it writes is in `folder`."""

    def __init__(self, folder: Path, head: Host) -> None:
        self.head = head
        self._folder = folder
        self._lookouts = 0
        self.home = folder / "home"
        """Has no token in it."""
        self.home.mkdir()
        self.token = self.make_token("token")

    def make_token(self, name: str) -> Path:
        """A file with a new one, which only its owner can read."""
        path = self._folder / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        return path

    def environment(self, token: Path | None, *, mode: bool = True) -> dict[str, str]:
        """Variables of a program on a host that has this token. mode: it knows that tokens are asked for."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        ray |= {"RAY_AUTH_MODE": "token"} if mode else {}
        ray |= {"RAY_AUTH_TOKEN_PATH": str(token)} if token else {}
        return {**ours, **ray, "HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    def start_head(self) -> None:
        """Until nodes may join, and the lookout sees them."""
        self._start(self.head, self._begin, self._looks)

    def _begin(self) -> Popen[bytes]:
        self._lookouts += 1
        self._seen = self._folder / f"lookout-{self._lookouts}"
        return self._ray(self.head, "--head", f"--port={PORT}", "--include-dashboard=false", cpus=HEAD_CPUS)

    def _looks(self) -> bool:
        """Whether the lookout sees the head; it is started when `ray start` is ready."""
        if not self._seen.exists() and "Ray runtime started" in self.log(self.head).read_text():
            self.head.start([sys.executable, "-c", LOOKOUT], self.environment(self.token), self._seen)
        return self.alive(self.head)

    def up(self, host: Host) -> None:
        """It joins, and is there."""
        self._start(host, lambda: self.join(host), lambda: self.alive(host))

    def _start(self, host: Host, start: Callable[[], Popen[bytes]], there: Callable[[], bool]) -> None:
        """`ray start` gives up after 30 s, too few on a busy machine: then all of it anew."""
        for _ in range(STARTS):
            process = start()
            until(lambda: there() or process.poll() is not None, SETUP_SECONDS, pause=0.2)  # noqa: B023
            if there():
                return
            host.kill()
            host.boot()
        raise Broken(f"Ray does not start on {host.name}: {self.log(host).read_text()[-300:]}")

    def join(self, host: Host, environment: Mapping[str, str] | None = None) -> Popen[bytes]:
        """`ray start --block` on it; it need not have joined yet. environment: with another token, or without."""
        return self._ray(host, f"--address={self.head.address}:{PORT}", cpus=CPUS, environment=environment)

    def _ray(
        self, host: Host, *arguments: str, cpus: int, environment: Mapping[str, str] | None = None
    ) -> Popen[bytes]:
        here = f"--node-ip-address={host.address}", f"--num-cpus={cpus}", f"--object-store-memory={STORE}"
        self.log(host).write_text("")
        return host.start([*RAY, *arguments, *here], environment or self.environment(self.token), self.log(host))

    def log(self, host: Host) -> Path:
        """What the last `ray start` on it printed."""
        return self._folder / f"ray-{host.name}.log"

    def launch(self, log: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> Program:
        """`launch.py` on the head, with witnesses."""
        command = [*self.head.enter(), sys.executable, "-m", "chaos.witnessed_launch"]
        return Program(log, *arguments, command=command, environment=environment or self.environment(self.token))

    def train(self, log: Path, runs: Path, environment: Mapping[str, str] | None = None) -> Program:
        """The run `run` below `runs`."""
        where = ("--address", "auto", "--runs-dir", runs, "--run.name", "run")
        return self.launch(log, "train", "cartpole", *where, *OPTIONS, environment=environment)

    def history(self) -> list[tuple[float, list[str]]]:
        """When the set of nodes that are alive changed, and to which addresses. A torn last line is not there yet."""
        lines = self._seen.read_text().splitlines(keepends=True) if self._seen.exists() else []
        changes = [json.loads(line) for line in lines if line.startswith("[") and line.endswith("\n")]
        return [(at, addresses) for at, addresses in changes]

    def alive(self, host: Host) -> bool:
        history = self.history()
        return bool(history) and host.address in history[-1][1]

    def lost(self, host: Host, since: float) -> float:
        """Seconds after `since` until it was no longer alive; NaN if it always was."""
        gone = (at - since for at, addresses in self.history() if at > since and host.address not in addresses)
        return next(gone, float("nan"))
