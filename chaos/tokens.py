"""Hosts and drivers that know no token of the cluster, or a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chaos.cluster import Cluster
from chaos.hosts import Host
from chaos.programs import until
from chaos.report import Outcome

REFUSED_SECONDS = 120.0
"""Until a `ray start` without the token must have ended. Longer: it waits, and joins if it can."""


def tokens(cluster: Cluster, host: Host, folder: Path) -> Outcome:
    """Try to join with `host`, and to train on the head, both without and with a wrong token."""
    wrong = cluster.make_token("wrong-token")
    ways: Mapping[str, dict[str, str]] = {
        "no token": cluster.environment(None),
        "no token mode": cluster.environment(None, mode=False),
        "wrong token": cluster.environment(wrong),
    }
    refused = joined = drivers = 0
    notes: list[str] = []
    for name, environment in ways.items():
        process = cluster.join(host, environment)
        until(lambda process=process: process.poll() is not None, REFUSED_SECONDS, pause=0.2)  # type: ignore[misc]
        if process.poll() not in (None, 0):
            refused += 1
        else:
            notes.append(f"{name}: `ray start` ended with {process.poll()}: {cluster.log(host).read_text()[-200:]}")
        host.kill()
        host.boot()
        with cluster.train(folder / "log", folder / f"refused with {name}", environment) as program:
            code = program.wait(REFUSED_SECONDS)
            if code == 2 and "cannot join that cluster" in program.error():
                drivers += 1
            else:
                notes.append(f"{name}: the driver ended with {code}: {program.error() or program.printed()[-200:]}")
    joined = sum(host.address in addresses for _, addresses in cluster.history())
    notes += [f"{host.name} was seen in the cluster {joined} times"] if joined else []
    return Outcome(
        "no token, wrong token",
        "refused: neither a node nor a driver gets in",
        2 * len(ways),
        2 * len(ways) - refused - drivers + joined,
        refused == drivers == len(ways) and not joined,
        {"nodes refused": refused, "drivers refused": drivers, "joined": joined},
        notes,
    )
