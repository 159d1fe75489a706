"""Paths, names and numbers that cannot be used: one line says which and why, and nothing is left behind or harmed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muzero_ray import launch
from muzero_ray.config.kinds import fields_of, kinds_of
from muzero_ray.config.schema import Config
from muzero_ray.config.validation import leaf_paths
from muzero_ray.errors import ConfigError
from muzero_ray.stop_signals import STOP_SIGNALS, handle_signals, leave
from muzero_ray.user_paths import check_new_folder
from tests.command_lines import make_run, refused, train
from tests.patience import PATIENCE
from tests.small_runs import run_serial, small_config
from tests.test_command_line_runs import ROOT, SMALL


def error_of(capsys: pytest.CaptureFixture[str], code: int, *argv: object) -> str:
    """What `launch.py` prints, which is one line, when it ends with `code`."""
    assert launch.main([*map(str, argv)]) == code
    out, err = capsys.readouterr()
    assert (out, err[:7], err.count("\n")) == ("", "error: ", 1)
    return err


# --- paths ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def odd_places(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-anna").write_text("mine")
    return tmp_path


@pytest.mark.parametrize("place", ["file", "dangling", "loop", "fifo", "a" * 300, "/dev/null/x", "/proc/x"])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_folder_for_runs_that_cannot_be(
    place: str, resume: list[str], odd_places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = odd_places / place
    error = error_of(capsys, 2, "train", "cartpole", *SMALL, *resume, "--runs-dir", runs, "--run.name", "x")
    assert str(runs / "x") in error
    assert "--runs-dir" in error


@pytest.mark.parametrize("name", ["file", "dangling", "loop", "a" * 300])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_run_folder_that_cannot_be(
    name: str, resume: list[str], odd_places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(capsys, 2, "train", "cartpole", *SMALL, *resume, "--runs-dir", odd_places, "--run.name", name)
    assert str(odd_places / name) in error
    assert (odd_places / "file").read_text() == "mine"


def test_resume_never_moves_a_folder_that_is_not_a_run(odd_places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--runs-dir", odd_places, "--run.name", "letters", "--resume")
    error = error_of(capsys, 2, "train", "cartpole", *SMALL, *where)
    assert "not a run's folder" in error
    assert (odd_places / "letters" / "to-anna").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../b", "/tmp/x", "new\nline", "\x1b[31m", "\udcff", "a\0"]
)
def test_a_name_that_is_not_one(name: str, tmp_path: Path) -> None:
    message = refused("train", "cartpole", "--runs-dir", str(tmp_path), "--run.name", name)
    assert message.startswith("--run.name: ")
    assert message.isprintable()


def test_names_of_runs_may_be_grouped() -> None:
    assert train("cartpole --run.name today/seed-1").config.run.name == "today/seed-1"


@pytest.mark.parametrize("place", ["fifo", "/dev/zero", "/dev/stdin", "letters", "loop", "dangling", "a" * 300])
def test_a_config_file_that_is_not_one(place: str, odd_places: Path) -> None:
    assert str(odd_places / place) in refused("train", "--config", str(odd_places / place))


@pytest.mark.parametrize("command", ["evaluate", "play", "resume", "report"])
@pytest.mark.parametrize("place", ["file", "dangling", "loop", "fifo", "letters", "a" * 300, "", "/", "\udcff", "a\0b"])
def test_a_run_that_is_not_one(command: str, place: str, odd_places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error_of(capsys, 2, command, odd_places / place)


@pytest.mark.parametrize("host", ["[", "h:99999999", "a" * 300 + ":8265", "\udcff:1"])
def test_an_address_that_is_not_one(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, 2, "submit", "cartpole", "--runs-dir", "/x", "--address", f"http://{host}")
    assert error.startswith("error: --address: ")


def test_errors_do_not_pass_on_commands_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\\x1b[31m" in error_of(capsys, 2, "evaluate", "\x1b[31m")


def as_somebody_else(*command: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user whom the machine does not know. He may read everything: the tests' Python may be private."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to be another user")
    read = "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *read]
    inherited = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    return subprocess.run(
        [*user, *map(str, command)],
        env=inherited | environment,
        cwd=folder,
        timeout=PATIENCE,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the user who runs the tests, in folders that everyone may enter."""
    folder = tmp_path_factory.mktemp("runs")
    assert run_serial(small_config(), folder / "run")
    for place in (folder, *folder.parents):
        place.chmod(place.stat().st_mode | 0o055)
    return folder / "run"


@pytest.mark.parametrize("command", ["train", "resume", "play"])
def test_another_users_folders_are_refused_in_one_line(command: str, trained_run: Path) -> None:
    runs = trained_run.parent
    words = (
        ["cartpole", "--serial", "--runs-dir", runs, "--run.wandb", "disabled"] if command == "train" else [trained_run]
    )
    more = ["--iterations", 50] if command == "resume" else []
    result = as_somebody_else(sys.executable, ROOT / "launch.py", command, *words, *more, folder=runs)
    assert result.returncode in (1, 2)
    *_, last = result.stderr.splitlines()  # behind the progress of the game
    assert "Traceback" not in result.stderr
    assert re.match(".*(Permission denied|not writable)", last.removeprefix("error: "))


@pytest.mark.parametrize("command", ["evaluate", "resume", "report"])
def test_a_run_that_may_not_be_looked_at(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may look at everything, so the refusal is made up: for the folder of the checkpoints."""
    run = make_run(tmp_path / "run")
    scanned = os.scandir

    def refuse(place: Any) -> Any:
        """place: a path, or the number of an open folder."""
        if not isinstance(place, int) and Path(place).name == "checkpoints":
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return scanned(place)

    monkeypatch.setattr(os, "scandir", refuse)
    assert str(run) in error_of(capsys, 2, command, run)


@pytest.mark.parametrize("environment", [{"HOME": "/nonexistent"}, {}], ids=str)
def test_a_user_without_a_home_trains(environment: dict[str, str], tmp_path: Path) -> None:
    """As in a container under any user id, with the program installed by somebody else."""
    runs = tmp_path / "runs"
    runs.mkdir()
    os.chown(runs, 54321, 54321)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    words = ("train", "cartpole", "--iterations", 10, "--runs-dir", runs, "--run.name", "x", *SMALL)
    result = as_somebody_else(sys.executable, ROOT / "launch.py", *words, folder=tmp_path, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert (runs / "x" / "checkpoints" / "10").is_dir()


def test_a_deleted_current_directory(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); os.execv(sys.argv[1], sys.argv[1:])"
    )
    program = [sys.executable, str(ROOT / "launch.py"), "presets"]
    result = subprocess.run(
        [sys.executable, "-c", code, *program],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: the current directory is gone")


# --- numbers -------------------------------------------------------------------------------------------------------


def default(path: tuple[str, ...]) -> Any:
    section: Any = Config
    for key in path[:-1]:
        section = fields_of(section)[key].annotation
    return fields_of(section)[path[-1]].default


def its_kind(path: tuple[str, ...]) -> list[str]:
    """The option that chooses a kind of search or network that has this setting."""
    kinds = kinds_of(Config.model_fields[path[0]].annotation)
    return [] if kinds is None else [f"--{path[0]}.kind", kinds.owners(path[1])[0]]


WHOLE = [path for path in leaf_paths(Config) if type(default(path)) is int or path[-1] in ("layers", "head_layers")]


@pytest.mark.parametrize("path", WHOLE, ids=".".join)
def test_every_whole_number_has_a_limit(path: tuple[str, ...]) -> None:
    option = f"--{'.'.join(path)}".replace("_", "-")
    message = refused("train", "cartpole", option, str(10**30), *its_kind(path))
    assert message.startswith(f"{option}: ")
    assert "(got 1000000000000000000000000000000)" in message


@pytest.mark.parametrize(
    "option", ["--minutes", "--replay.samples-per-insert", "--reanalyze.ratio", "--actors.num-cpus"]
)
@pytest.mark.parametrize("value", ["1e308", "inf", "nan"])
def test_numbers_that_would_overflow(option: str, value: str) -> None:
    assert refused("train", "cartpole", option, value).startswith(f"{option}: ")


def test_the_largest_seed_is_the_largest_that_torch_takes() -> None:
    assert train(f"cartpole --seed {2**64 - 1}").config.run.seed == 2**64 - 1
    for words in (["train", "cartpole", "--seed"], ["train", "cartpole", "--seeds"]):
        assert "18446744073709551616" in refused(*words, str(2**64))


@pytest.mark.parametrize("words", [["--network.layers=[64,64]"], ["--network.layers", "64", "x"]])
def test_a_list_is_blamed_as_it_was_typed(words: list[str]) -> None:
    message = refused("train", "cartpole", *words)
    assert message.startswith("--network.layers: ")
    assert "such as --network.layers 64 64" in message


# --- signals at the start ------------------------------------------------------------------------------------------

STARTING = """
import os, signal, sys, time
import muzero_ray.actors.cluster, muzero_ray.cli.parse
from muzero_ray import launch

def interrupted(*_):
    os.kill(os.getpid(), number)
    if number not in signal.sigpending():  # kept until Ray has started its processes
        time.sleep(60)

place, name = sys.argv.pop(1).split(":")
number = int(sys.argv.pop(1))
setattr(sys.modules[place], name, interrupted)
sys.exit(launch.program())
"""


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("place", ["muzero_ray.cli.parse:parse_args", "muzero_ray.actors.cluster:connect"])
def test_a_signal_during_the_start_leaves_nothing_behind(place: str, number: signal.Signals, tmp_path: Path) -> None:
    words = [word for word in SMALL if word != "--serial"]
    where = ["--runs-dir", str(tmp_path), "--run.name", "x"]
    result = subprocess.run(
        [sys.executable, "-c", STARTING, place, str(int(number)), "train", "cartpole", *words, *where],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stderr) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_nohup_keeps_its_meaning() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        handle_signals(leave)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == leave
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_bug_still_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise FileNotFoundError("not a path of the user's")

    monkeypatch.setattr(launch, "dispatch", broken)
    with pytest.raises(FileNotFoundError):
        launch.main(["presets"])
    with pytest.raises(ConfigError):
        check_new_folder(Path("/dev/null/x"))
