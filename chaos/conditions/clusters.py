"""Private Rays, clusters that are not there, tokens, and jobs."""

from __future__ import annotations

import os
import signal
import socket

from chaos.conditions.place import LONG, Place, condition
from chaos.programs import until
from chaos.ray_processes import VICTIMS, find


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@condition(
    "`--address HOST:PORT` where nobody listens", "exit code 2 in seconds; the address and how to start a cluster"
)
def nobody_listens(place: Place) -> None:
    address = f"127.0.0.1:{free_port()}"
    place.expect(place.train("--address", address, serial=False, seconds=60), address, "ray start", code=2)


@condition(
    "`--address auto` with the address of a cluster that is gone", "exit code 2 in seconds; the address is named"
)
def stale_address(place: Place) -> None:
    environment = place.environment(RAY_ADDRESS=f"127.0.0.1:{free_port()}")
    ended = place.train("--address", "auto", serial=False, environment=environment, seconds=60)
    place.expect(ended, "address", "ray start", code=2)


@condition("`--address ray://HOST:10001`", "exit code 2; says that the driver must run on a node")
def ray_client(place: Place) -> None:
    place.expect(place.train("--address", "ray://127.0.0.1:10001", serial=False), "node of the cluster", code=2)


@condition("RAY_ADDRESS names another cluster, and a private Ray is wanted", "exit code 0: the private one is used")
def other_address(place: Place) -> None:
    environment = place.environment(RAY_ADDRESS=f"127.0.0.1:{free_port()}")
    place.expect(place.train(serial=False, environment=environment), "trained: ")


@condition("a blank RAY_AUTH_TOKEN", "exit code 0 or 2; the good token file is as it was")
def blank_token(place: Place) -> None:
    token = place.folder / "token"
    token.write_text("a" * 64)
    token.chmod(0o600)
    environment = place.environment(RAY_AUTH_TOKEN=" ", RAY_AUTH_TOKEN_PATH=str(token))
    ended = place.train(serial=False, environment=environment)
    place.expect(ended, "trained: " if ended.code == 0 else "RAY_AUTH_TOKEN", code=(0, 2))
    place.holds(token.read_text() == "a" * 64, "the token file was overwritten")


@condition("two private Rays at once", "both end with 0; neither sees the other")
def two_at_once(place: Place) -> None:
    program = place.started(*place.training(serial=False, name="other"))
    place.expect(place.train(serial=False), "trained: ")
    place.stops(program, "trained: ", code=0)


@condition(
    "`learner.workers=2` on one device (`auto`, no GPUs for Ray)", "each rank has a device of its own, or exit code 2"
)
def two_ranks(place: Place) -> None:
    ended = place.train("--learner.workers", 2, "--learner.cpus", 0.4, "--actors.num-cpus", 0.5, serial=False)
    place.expect(ended, "trained: " if ended.code == 0 else r"learner.gpus", code=(0, 2))


@condition("more CPUs reserved than the machine has", "exit code 2; both numbers")
def too_many_cpus(place: Place) -> None:
    place.expect(place.train("--learner.cpus", 500, serial=False), r"500", "CPUs", code=2)


@condition("`submit` where nobody listens", "exit code 2 in seconds; the address is named")
def submit_to_nobody(place: Place) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    ended = place.launch(
        "submit", "cartpole", "--runs-dir", "/runs", "--run.name", "job", "--address", address, seconds=60
    )
    place.expect(ended, address, code=2)


@condition("workers that cannot start (their Python is broken)", "exit code 1 within minutes; which worker and why")
def broken_workers(place: Place) -> None:
    broken = place.folder / "broken"
    broken.mkdir()
    # The driver gets past this; each worker of Ray ends with it.
    (broken / "sitecustomize.py").write_text(
        "import sys\nif any('default_worker' in word for word in sys.orig_argv): sys.exit('this Python is broken')\n"
    )
    environment = place.environment()
    environment["PYTHONPATH"] = f"{broken}:{environment['PYTHONPATH']}"
    place.expect(place.train(serial=False, environment=environment, seconds=900), "worker|start", code=1)


@condition(
    "Ray's address file of another user in the shared temporary folder",
    "exit code 0: a private Ray does not look there",
)
def foreign_address_file(place: Place) -> None:
    temporary = place.folder / "t"
    (temporary / "ray").mkdir(parents=True)
    (temporary / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    (temporary / "ray").chmod(0o555)
    place.expect(place.train(serial=False, environment=place.environment(TMPDIR=str(temporary))), "trained: ")


@condition(
    "kill -9 of the runtime-environment agent, of the raylet, of the GCS",
    "Ray is started anew; the run goes on to its end",
)
def lost_ray_process(place: Place) -> None:
    for name in ("agent", "raylet", "GCS"):
        program = place.started(*place.training("--iterations", 3000, serial=False, name=name))
        run = place.run.with_name(name)
        place.waits_for(lambda run=run: place.has_checkpoint(run), program, "a checkpoint")  # type: ignore[misc]
        os.kill(find(program.pid, VICTIMS[name].sign), signal.SIGKILL)
        place.stops(program, "starting Ray anew", "trained: ", code=0)


@condition("the driver is killed (kill -9)", "all of its processes are gone within 60 s; `resume` goes on")
def killed_driver(place: Place) -> None:
    program = place.started(*place.training(*LONG, serial=False))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    program.kill_group()
    place.holds(until(lambda: not program.left(), 60), "some of its processes are left")
    place.goes_on()
