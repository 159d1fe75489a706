"""`submit`, and what it rests on: `train --resume`, the same command to start a run or to go on with it."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ray.job_submission import JobSubmissionClient

from muzero_ray import launch
from muzero_ray.actors import jobs
from muzero_ray.cli.commands import ResumeCommand, SubmitCommand, TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config.schema import Config
from muzero_ray.errors import ConfigError, MuZeroRayError
from muzero_ray.runs.checkpoint import load_checkpoint
from tests.small_runs import run_serial, small_config

# --- words ---------------------------------------------------------------------------------------------------------


def submitted(line: str) -> SubmitCommand:
    command = parse_args(["submit", *line.split()])
    assert isinstance(command, SubmitCommand)
    return command


def test_submit_takes_what_train_takes_and_names_the_run() -> None:
    words = "cartpole --seed 3 --actors 9 --simulations 7 --runs-dir /runs"
    command = submitted(f"{words} --address http://head:8265")
    expected = parse_args(["train", *words.split(), "--run.name", "cartpole-s3", "--address", "auto"])
    assert isinstance(expected, TrainCommand)
    assert command == SubmitCommand(expected.config, "http://head:8265")
    assert command.folder == Path("/runs/cartpole-s3")
    assert submitted("--game Alien --run.name mine --runs-dir /r --address https://h").folder == Path("/r/mine")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cartpole --runs-dir /runs", "submit: --address must be that of the cluster's dashboard (got None)."),
        ("cartpole --runs-dir /runs --address auto", "submit: --address must be that of the cluster's dashboard"),
        ("cartpole --address http://head:8265", "submit: --runs-dir must be absolute (got runs)"),
        ("cartpole --address http://head:8265 --runs-dir /runs --serial", "submit: --serial uses no cluster"),
        ("cartpole --adress http://head:8265", "--adress: unknown option of submit. Did you mean --address?"),
        ("", "submit: needs a preset"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_args(["submit", *line.split()])
    assert str(caught.value).startswith(message)


# --- sending -------------------------------------------------------------------------------------------------------


class Status(str):
    """RUNNING, FAILED, ... as Ray's."""

    def is_terminal(self) -> bool:
        return self in ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass
class Job:
    submission_id: str
    status: Status
    metadata: dict[str, str] | None


@dataclass
class FakeClient:
    """Stands in for Ray's: keeps what it was given, while the folder that is sent is still there."""

    address: str
    sent: ClassVar[list[dict[str, Any]]] = []
    there: ClassVar[list[Job]] = []
    fails: ClassVar[Exception | None] = None
    stages: ClassVar[list[tuple[str, str]]] = []
    """What is said of the job that was sent: status and log at one look after another; the last one stays."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        assert not {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"} & self.environment.keys()

    def list_jobs(self) -> list[Job]:
        return self.there

    def get_job_status(self, job: str) -> Status:
        assert job == "job-1"
        return Status(self.stages[0][0])

    def get_job_logs(self, job: str) -> str:
        assert job == "job-1"
        return self.stages.pop(0)[1] if len(self.stages) > 1 else self.stages[0][1]

    def get_job_info(self, job: str) -> Any:
        assert job == "job-1"
        return SimpleNamespace(message="its environment was not set up")

    def submit_job(self, **arguments: Any) -> str:
        if self.fails is not None:
            raise self.fails
        folder = Path(arguments["runtime_env"]["working_dir"])
        files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        command = parse_args(["train", "--config", str(folder / jobs.CONFIG_FILE), "--resume"])
        assert isinstance(command, TrainCommand)
        # Complete: it is found by its own means, not by this checkout's.
        code = "import launch; from muzero_ray.actors import supervisor; from muzero_ray.learner import learner; "
        code += "print(launch.__file__, supervisor.__file__, learner.__file__)"
        run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
        self.sent.append(
            {**arguments, "address": self.address, "files": files, "config": command.config, "from": run.stdout}
        )
        return "job-1"


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of something that accepts connections; Ray's client is a stand-in."""
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", FakeClient)
    monkeypatch.setattr(jobs, "CLIENT_NEEDS", "socket")  # which is always there
    monkeypatch.setattr(FakeClient, "sent", [])
    monkeypatch.setattr(FakeClient, "there", [])
    monkeypatch.setattr(FakeClient, "fails", None)
    monkeypatch.setattr(FakeClient, "stages", [("RUNNING", "starting workers")])
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_job_is_the_program_and_its_whole_configuration(
    dashboard: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary")
    words = ["submit", "cartpole", "--seed", "4", "--runs-dir", "/runs", "--address", dashboard]
    assert launch.main(words) == 0
    (sent,) = FakeClient.sent
    assert sent["address"] == dashboard
    assert sent["entrypoint"] == "python launch.py train --config job.yaml --resume"
    assert sent["runtime_env"].keys() == {"working_dir"}
    assert sent["metadata"] == {"muzero_run": "/runs/cartpole-s4"}
    assert sent["config"] == submitted(" ".join(words[1:])).config
    program = {str(path.relative_to(Path(launch.__file__).resolve().parent)) for path in launch_files()}
    assert sent["files"] == program | {"job.yaml"}
    assert all("tmp" in place for place in sent["from"].split())
    assert "canary" not in str(sent)
    out = capsys.readouterr().out
    assert "ray job stop job-1" in out


def launch_files() -> list[Path]:
    """Everything of the program, its data files too."""
    root = Path(launch.__file__).resolve().parent
    folders = os.walk(root / "muzero_ray", followlinks=True)
    package = [Path(folder, name) for folder, _, names in folders for name in names]
    return [root / "launch.py", *(path for path in package if "__pycache__" not in path.parts)]


def test_a_run_that_is_training_is_not_started_twice(dashboard: str) -> None:
    command = submitted(f"cartpole --runs-dir /runs --address {dashboard}")
    key = {jobs.RUN_KEY: str(command.folder)}
    FakeClient.there[:] = [
        Job("old", Status("STOPPED"), key),
        Job("other", Status("RUNNING"), None),
        Job("else", Status("RUNNING"), {jobs.RUN_KEY: "/runs/other"}),
    ]
    assert "job-1" in jobs.submit(command)
    FakeClient.there.append(Job("now", Status("RUNNING"), key))
    with pytest.raises(
        MuZeroRayError, match=r"run /runs/cartpole-s0 is training already, as job now\. Stop that first"
    ):
        jobs.submit(command)
    assert len(FakeClient.sent) == 1


def test_what_the_dashboard_refuses_is_one_message(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeClient, "fails", RuntimeError("Request failed with status code 401:\n Unauthorized"))
    with pytest.raises(MuZeroRayError, match=r"refused .*status code 401: Unauthorized.*RAY_AUTH_TOKEN"):
        jobs.submit(submitted(f"cartpole --runs-dir /runs --address {dashboard}"))


def test_a_job_that_cannot_start_is_an_error_with_the_end_of_its_log(
    dashboard: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "Running entrypoint\nTraceback\nModuleNotFoundError: No module named 'pydantic'\n"
    monkeypatch.setattr(FakeClient, "stages", [("PENDING", ""), ("RUNNING", "Running entrypoint\n"), ("FAILED", log)])
    assert launch.main(["submit", "cartpole", "--runs-dir", "/runs", "--address", dashboard]) == 1
    error = capsys.readouterr().err
    assert "job job-1 ended before it trained (failed)" in error
    assert "No module named 'pydantic'" in error
    assert "before `ray start`" in error
    monkeypatch.setattr(FakeClient, "stages", [("FAILED", "")])
    with pytest.raises(MuZeroRayError, match="its environment was not set up"):
        jobs.submit(submitted(f"cartpole --runs-dir /runs --address {dashboard}"))


def test_a_job_that_waits_for_its_node_is_not_said_to_train(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeClient, "stages", [("PENDING", "")])
    monkeypatch.setattr(jobs, "START_SECONDS", 0.1)
    assert "job-1 has not started yet" in jobs.submit(submitted(f"cartpole --runs-dir /runs --address {dashboard}"))


def test_the_printed_lines_show_the_token(dashboard: str) -> None:
    said = jobs.submit(submitted(f"cartpole --runs-dir /runs --address {dashboard}"))
    for line in said.splitlines()[1:]:
        assert line.split(maxsplit=1)[1].startswith("RAY_AUTH_MODE=token ray job ")


def test_without_the_job_client_of_ray_the_extra_is_named(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CLIENT_NEEDS", "no_such_package")
    with pytest.raises(ConfigError, match=r"no_such_package is missing.*pip install 'muzero-ray\[cluster\]'"):
        jobs.submit(submitted(f"cartpole --runs-dir /runs --address {dashboard}"))
    assert FakeClient.sent == []


@pytest.mark.skipif(importlib.util.find_spec(jobs.CLIENT_NEEDS) is not None, reason="the job client is installed")
def test_what_the_job_client_needs_is_what_ray_lacks() -> None:
    with pytest.raises(RuntimeError, match=r"require the ray\[default\]"):
        JobSubmissionClient("http://127.0.0.1:1")


def test_a_dashboard_that_does_not_answer_is_named_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid:8265"):
        assert launch.main(["submit", "cartpole", "--runs-dir", "/runs", "--address", address]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: --address: no dashboard answers there (got {address}: ")
        assert "ssh -L 8265:localhost:8265" in err
        assert err.count("\n") == 1


# --- train --resume ------------------------------------------------------------------------------------------------


def command_for(config: Config, folder: Path, *, resume: bool = True, **run: Any) -> TrainCommand:
    settings = config.run.model_copy(update={"runs_dir": str(folder.parent), "name": folder.name, **run})
    return TrainCommand(config.model_copy(update={"run": settings}), None, "cartpole", resume)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Path, int | None]]:
    """What would be trained: configuration, folder, learner step of the checkpoint."""
    runs: list[tuple[Config, Path, int | None]] = []

    def run(config: Config, task: object, output: Any, checkpoint: Any, *_: object) -> int:
        del task
        output._metrics.close()
        runs.append((config, output.folder, checkpoint.step if checkpoint else None))
        return 0

    monkeypatch.setattr(launch, "run", run)
    return runs


def test_the_same_command_starts_a_run_and_goes_on_with_it(
    tmp_path: Path, started: list[tuple[Config, Path, int | None]]
) -> None:
    config, folder = small_config(), tmp_path / "run"
    command = command_for(config, folder)
    assert launch.train(command) == 0
    assert started == [(command.config, folder, None)]
    folder.rename(tmp_path / "never-trained")

    run_serial(command.config, folder, stop_at=20)
    step = load_checkpoint(folder).step
    assert launch.train(command) == 0
    assert launch.train(command_for(config, folder, learner_steps=80, address="auto")) == 0
    assert [(config.run.learner_steps, config.run.address, step) for config, _, step in started[1:]] == [
        (40, None, step),
        (80, "auto", step),
    ]
    # Without --resume the folder is in the way.
    with pytest.raises(ConfigError, match="exists already"):
        launch.train(command_for(config, folder, resume=False))


def test_options_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    config, folder = small_config(), tmp_path / "run"
    made_with = command_for(config, folder).config
    other = config.model_copy(update={"learner": config.learner.model_copy(update={"lr": 0.5})})
    with pytest.raises(ConfigError) as caught:
        command_for(other, folder, seed=9).resumed(folder, made_with)
    text = str(caught.value)
    assert "was started with run.seed=3 (got 9; 2 settings differ)" in text
    same = command_for(config, folder, runs_dir="elsewhere", episodes=7, minutes=None)
    assert same.resumed(folder, made_with) == ResumeCommand(run=folder, episodes=7)


def test_a_run_that_ended_before_its_first_checkpoint_gives_its_name_back(
    tmp_path: Path, started: list[tuple[Config, Path, int | None]]
) -> None:
    folder = tmp_path / "run"
    for _ in range(3):
        assert launch.train(command_for(small_config(), folder)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.abandoned-1", "run.abandoned-2"}
    assert [step for _, _, step in started] == [None] * 3


def test_the_default_name_is_the_same_every_time_only_for_resume(
    tmp_path: Path, started: list[tuple[Config, Path, int | None]]
) -> None:
    config = small_config(run={"runs_dir": str(tmp_path)})
    for resume in (True, False):
        assert launch.train(TrainCommand(config, None, "cartpole", resume)) == 0
    names = [folder.name for _, folder, _ in started]
    assert names[0] == "cartpole-s3"
    assert names[1].startswith("cartpole-s3-2")
