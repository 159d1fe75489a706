"""Every command line that the program prints is provoked here, taken from what was printed, and executed.

The source is searched for them, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from muzero_ray import launch, printed
from muzero_ray.control.serial import SerialRunner
from muzero_ray.printed import launch_line
from muzero_ray.runs.callbacks import STOP
from muzero_ray.runs.checkpoint import load_checkpoint
from tests.test_command_line_runs import SMALL
from tests.test_layering import modules

PRINTED = re.compile(
    r"python3? (?:\S*launch\.py|-m )|\b(?:pip|pip3) install|\bray (?:job|start|up)\b|\bwandb sync|\bssh -"
)
"""What a command line begins with, in the texts of the program."""

COMMAND = re.compile(r"python (?:'[^']*launch\.py'|\S*launch\.py) [^`\n]*")
"""One of this program's in what was printed: to the end of the line, or of what stands in backticks."""

ELSEWHERE = {
    "muzero_ray.cli.parse.parse_args": "the forms of the commands, which tests/test_documented_commands.py parses",
    "muzero_ray.inference.build": "pip: installs a package (its name is checked below)",
    "muzero_ray.envs.gymnasium_env._register_plugins": "pip: installs a package (its name is checked below)",
    "muzero_ray.envs.gymnasium_env._remedy": "pip: installs a package",
    "muzero_ray.envs.open_spiel._pyspiel": "pip: installs a package (its name is checked below)",
    "muzero_ray.actors.cluster.connect": "ray start: needs a cluster",
    "muzero_ray.actors.cluster._join": "submit, ray start: need a cluster (tests/test_submit.py starts one)",
    "muzero_ray.actors.ray_watch.refuse_unreachable": "ray start: needs a cluster",
    "muzero_ray.actors.jobs._await_start": "ray job: needs a cluster (tests/test_submit.py starts one)",
    "muzero_ray.actors.jobs._ray_job": "ray job: needs a cluster (tests/test_submit.py starts one)",
    "muzero_ray.actors.jobs._check_client": "pip: installs a package (its name is checked below)",
    "muzero_ray.actors.jobs._reach": "ssh: needs a host of a cluster",
    "muzero_ray.networks.onnx_export": "pip: installs a package (its name is checked below)",
    "muzero_ray.runs.metrics_table.MetricsTable.to_pandas": "pip: installs a package",
    "muzero_ray.runs.tracking._WandbThread._start": "wandb sync: needs an account of W&B",
}
"""Printed command lines that no test executes, by where they are made, and why."""


# --- where they are ------------------------------------------------------------------------------------------------


def printed_places() -> set[str]:
    """Module and function of every text, but for comments and docstrings, that holds a command line."""
    found: set[str] = set()

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{name}.{node.name}"
        body = getattr(node, "body", None)
        for child in ast.iter_child_nodes(node):
            is_doc = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and isinstance(body, list)
            if not is_doc:
                visit(child, name)
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and PRINTED.search(node.value)
        is_made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "launch_line"
        if is_text or is_made:
            found.add(name)

    for module, path in modules().items():
        visit(ast.parse(path.read_text()), module)
    return found


def test_every_printed_command_is_executed_here_or_listed_with_the_reason() -> None:
    assert printed_places() == set(SITUATIONS) | set(ELSEWHERE)


def test_the_extras_that_messages_name_are_there() -> None:
    root = Path(launch.__file__).resolve().parent
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra
        for path in modules().values()
        for extra in re.findall(r"pip install 'muzero-ray\[(\w+)\]'", path.read_text())
    }
    assert named
    assert named <= extras.keys()


# --- what they say -------------------------------------------------------------------------------------------------


class Person:
    """Types commands in a folder of its own, and reads what they print."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.patch = monkeypatch
        self._capsys = capsys
        self.name = "it's a run"
        """A shell would split it, and wait for the other quote."""

    def types(self, *words: str, code: int = 0) -> str:
        """What the command prints; it ends with `code`."""
        self._capsys.readouterr()
        try:
            ended = launch.main(words)
        except SystemExit as stop:  # help
            ended = int(stop.code or 0)
        said = self._capsys.readouterr()
        assert ended == code, said.err
        return said.out + said.err

    def trains(self, *words: str, code: int = 0) -> str:
        return self.types("train", "cartpole", *SMALL, *words, "--run.name", self.name, code=code)


def ended_by_steps(person: Person) -> str:
    return person.trains("--iterations", "3")


def ended_by_episodes(person: Person) -> str:
    return person.trains("--episodes", "1")


def ended_by_minutes(person: Person) -> str:
    """Far less than the run takes, so that twice as much is less, too."""
    return person.trains("--minutes", "0.0001")


class EndsSoon:
    """A callback that ends every run early."""

    def on_metrics(self, row: Mapping[str, float]) -> object:
        return STOP if row["learner_steps"] >= 3 else None


def ended_by_a_callback(person: Person) -> str:
    return person.trains("--run.callbacks", f"{__name__}:EndsSoon", "--run.log-steps", "1")


def resumed_when_finished(person: Person) -> str:
    ended_by_steps(person)
    return person.types("resume", f"runs/{person.name}")


def given_a_spent_limit(person: Person) -> str:
    """The message names an option, not a whole command."""
    ended_by_steps(person)
    said = person.types("resume", f"runs/{person.name}", "--iterations", "3", code=2)
    (option,) = re.findall(r"such as (--iterations \d+)", said)
    return launch_line("resume", f"runs/{person.name}", *option.split())


def given_the_name_of_a_run(person: Person) -> str:
    ended_by_steps(person)
    return person.trains("--iterations", "3", code=2)


def stopped(person: Person) -> str:
    turn = SerialRunner._turn

    def turn_and_stop(runner: SerialRunner) -> None:
        turn(runner)
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)

    with person.patch.context() as patch:
        patch.setattr(SerialRunner, "_turn", turn_and_stop)
        return person.trains("--iterations", "3", code=launch.INTERRUPTED)


def reported_too_early(person: Person) -> str:
    stopped(person)
    return person.types("report", f"runs/{person.name}", code=2)


def resumed_without_a_replay_chunk(person: Person) -> str:
    ended_by_steps(person)
    for chunk in (person.folder / "runs" / person.name / "replay").rglob("*.*"):
        chunk.unlink()
    said = person.types("resume", f"runs/{person.name}", "--iterations", "9", code=1)
    assert "--iterations 9" in said
    return said


def reported_with_a_damaged_score(person: Person) -> str:
    ended_by_steps(person)
    with (person.folder / "runs" / person.name / "scores.jsonl").open("a") as file:
        file.write("[1, 2\n")
    return person.types("report", f"runs/{person.name}", code=2)


def left_without_its_final_evaluation(person: Person) -> str:
    def interrupted(_: SerialRunner) -> None:
        raise KeyboardInterrupt

    with person.patch.context() as patch:
        patch.setattr(SerialRunner, "final_evaluation", interrupted)
        return person.trains("--iterations", "3", code=launch.INTERRUPTED)


def asked_for_presets(person: Person) -> str:
    return person.types("presets")


def asked_for_help(person: Person) -> str:
    """tyro may break lines anywhere."""
    help_text = " ".join(person.types("train", "--help").replace("│", " ").split())
    usage = "usage: python launch.py train"
    assert help_text.startswith(usage)
    return help_text.removeprefix(usage)


def named_no_run(person: Person) -> str:
    return person.types("evaluate", "runs/none", code=2)


def typed_an_unknown_option(person: Person) -> str:
    return person.types("train", "cartpole", "--zzzzzzz", code=2)


def typed_an_option_without_its_value(person: Person) -> str:
    return person.types("train", "cartpole", "--seed", code=2)


def typed_a_word_too_many(person: Person) -> str:
    return person.types("evaluate", f"runs/{person.name}", "more", code=2)


SITUATIONS: dict[str, list[Callable[[Person], str]]] = {
    "muzero_ray.launch.run": [left_without_its_final_evaluation],
    "muzero_ray.cli.parse_run._check_run": [named_no_run],
    "muzero_ray.cli.parse._parse_train": [asked_for_help],
    "muzero_ray.cli.parse.presets_table": [asked_for_presets],
    "muzero_ray.cli.options._nearest_flag": [typed_an_unknown_option],
    "muzero_ray.cli.options.split": [typed_an_option_without_its_value, typed_a_word_too_many],
    "muzero_ray.control.limits.end_lines": [
        *(ended_by_steps, ended_by_episodes, ended_by_minutes),
        *(resumed_when_finished, given_a_spent_limit),
    ],
    "muzero_ray.control.limits.finish": [ended_by_a_callback],
    "muzero_ray.runs.folder.make_run_folder": [given_the_name_of_a_run],
    "muzero_ray.cli.start._go_on": [resumed_without_a_replay_chunk],
    "muzero_ray.runs.scores.read_score": [reported_with_a_damaged_score],
    "muzero_ray.runs.folder.resume_hint": [stopped, reported_too_early],
}
"""Where command lines are made, and what makes the program print them."""


@pytest.mark.parametrize(
    "provoke", [one for several in SITUATIONS.values() for one in several], ids=lambda one: str(one.__name__)
)
def test_a_printed_command_does_what_it_promises(
    provoke: Callable[[Person], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    person = Person(folder, monkeypatch, capsys)
    commands = {line.rstrip(" .)") for line in COMMAND.findall(provoke(person))}
    assert commands
    for command in commands:
        python, program, *words = shlex.split(command)
        assert (python, program) == ("python", "launch.py")
        if "PRESET" in words:
            words = [*(w.replace("PRESET", "cartpole") for w in words), *SMALL, "--iterations", "3"]
        before = step_of(folder)
        said = person.types(*words)
        if words[0] == "resume":
            assert f"{person.name} is finished" in said or step_of(folder) > before or "trained: " in said
        if words[0] == "evaluate" and "--help" not in words:
            assert said.splitlines()[-1].startswith("return_mean=")


def step_of(folder: Path) -> int:
    runs = list(folder.glob("runs/*"))
    return load_checkpoint(runs[0]).step if runs else -1


@pytest.mark.parametrize(
    ("started", "program"),
    [
        ("launch.py", "launch.py"),
        ("../code/launch.py", "../code/launch.py"),
        ("/opt/my code/launch.py", "'/opt/my code/launch.py'"),
        ("/usr/bin/pytest", "launch.py"),
    ],
)
def test_the_program_is_named_as_it_was_started(started: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [started, "train"])
    line = launch_line("resume", Path("runs/it's $HOME"), "--iterations", 5)
    assert line.startswith(f"python {program} resume ")
    assert shlex.split(line)[2:] == ["resume", "runs/it's $HOME", "--iterations", "5"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package, which has a copy of `launch.py` in place of the link."""
    (tmp_path / "launch.py").touch()
    monkeypatch.setattr("muzero_ray.printed.__file__", str(tmp_path / "printed.py"))
    return tmp_path


@pytest.mark.parametrize("started", ["launch.py", "__main__.py", "/usr/bin/pytest"])
def test_an_installed_program_is_named_as_a_module(
    started: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as a script it would find the package's `types` where Python has its own."""
    monkeypatch.setattr("sys.argv", [str(installed / started), "train"])
    assert launch_line("presets") == "python -m muzero_ray presets"


def test_a_module_of_a_checkout_is_named_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(Path(printed.__file__).with_name("__main__.py")), "train"])
    assert launch_line("presets") == "python -m muzero_ray presets"


@pytest.mark.usefixtures("installed")
def test_the_console_script_is_named_alone_where_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "my bin" / "muzero-ray"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(script), "train"])
    assert launch_line("presets") == f"'{script}' presets"
    monkeypatch.setenv("PATH", str(script.parent))
    assert launch_line("presets") == "muzero-ray presets"


def test_a_folder_with_modules_of_our_names_does_not_get_in_the_way(tmp_path: Path) -> None:
    for name in ("actors/__init__.py", "learner/__init__.py", "configs/__init__.py", "launch.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise ImportError('not ours')\n")
    root = Path(launch.__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-m", "muzero_ray", "presets"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Start one with: python -m muzero_ray train PRESET\n")
