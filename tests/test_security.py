"""Who may talk to a run, what its secrets end up in, and that its files are data."""

from __future__ import annotations

import ast
import os
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from muzero_ray import launch
from muzero_ray.actors import cluster
from muzero_ray.errors import ConfigError, MuZeroRayError
from tests.actors.programs import on_progress, ray_config, running
from tests.patience import PATIENCE
from tests.small_runs import run_serial, small_config
from tests.test_layering import modules

CANARY = "canary0123456789abcdef0123456789abcdef01"
"""As long as a W&B key."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the token -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the token of whoever runs it."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_the_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "home" / ".ray" / "auth_token"
    before = os.umask(0)
    try:
        cluster.make_token(file)
    finally:
        os.umask(before)
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    token = file.read_text()
    assert len(token) == 64
    file.chmod(0o644)  # as Ray writes it
    cluster.make_token(file)
    assert (mode(file), file.read_text()) == (0o600, token)


def test_a_token_in_the_environment_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    cluster.make_token(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert cluster.token_file() == tmp_path / "other"


def test_a_place_that_can_hold_no_token_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    file = tmp_path / "file" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    with pytest.raises(
        ConfigError, match=r"Ray's token file .*auth_token cannot be made private .*RAY_AUTH_TOKEN_PATH"
    ):
        cluster.make_token(file)


def test_without_a_home_the_token_lives_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # as if unset, and put back at the end
    cluster.make_token(tmp_path / "file" / ".ray" / "auth_token")
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


class FakeRay:
    """What `connect` asks Ray for, instead of Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, token_mode: bool) -> None:
        self.arguments: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.stopped = False
        self.fails: Exception | None = None
        from ray._raylet import AuthenticationMode  # type: ignore[attr-defined]

        answer = AuthenticationMode.TOKEN if token_mode else AuthenticationMode.DISABLED
        monkeypatch.setattr("ray._raylet.get_authentication_mode", lambda: answer)
        monkeypatch.setattr("ray.init", self.init)
        monkeypatch.setattr("ray.shutdown", self.shutdown)
        # The cluster that other tests share is none of its business: its processes would be ended.
        monkeypatch.setattr("ray._private.worker._global_node", None)
        monkeypatch.setattr("muzero_ray.actors.ray_watch.refuse_unreachable", lambda _: None)

    def init(self, **arguments: Any) -> None:
        self.arguments, self.environment = arguments, dict(os.environ)
        if self.fails is not None:
            raise self.fails

    def shutdown(self) -> None:
        self.stopped = True


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the token is to be; nothing is there yet. The environment is put back afterwards."""
    file = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    return file


def test_a_private_ray_asks_for_the_token_and_has_no_dashboard(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, token_mode=True)
    assert cluster.connect(None, "muzero-x") is None
    assert mode(token) == 0o600
    assert ray.environment["RAY_AUTH_MODE"] == "token"
    assert ray.arguments["address"] == "local"
    assert ray.arguments["include_dashboard"] is False
    assert "runtime_env" not in ray.arguments
    folder = Path(ray.arguments["_temp_dir"]).parent
    assert mode(folder) == 0o700  # Ray opens what it makes in there to everybody
    cluster.disconnect()
    assert ray.stopped
    assert not folder.exists()


@pytest.mark.usefixtures("token")
def test_a_private_ray_that_would_let_in_anybody_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, token_mode=False)
    with pytest.raises(MuZeroRayError, match="RAY_AUTH_MODE=token came too late"):
        cluster.connect(None, "muzero-x")
    assert ray.stopped
    assert not Path(ray.arguments["_temp_dir"]).parent.exists()


def test_a_cluster_gets_the_code_and_the_token_and_nothing_else(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    ray = FakeRay(monkeypatch, token_mode=False)
    warning = cluster.connect("auto", "muzero-x")
    assert warning is not None
    assert "asks for no token" in warning
    assert "RAY_AUTH_MODE" not in ray.environment
    assert ray.arguments["runtime_env"].keys() <= {"py_modules", "excludes", "env_vars"}
    assert ray.arguments["runtime_env"].get("env_vars", {}).keys() <= {"PYTHONPATH"}
    sent = [Path(path) for path in ray.arguments["runtime_env"]["py_modules"]]
    assert [path.name for path in sent] == ["muzero_ray"]
    assert all((path / part / "__init__.py").is_file() for path in sent for part in (".", "actors", "learner"))
    token.write_text("the cluster's")
    cluster.connect("10.0.0.1:6379", "muzero-x")
    assert ray.environment["RAY_AUTH_MODE"] == "token"


@pytest.mark.usefixtures("token")
def test_a_cluster_that_can_not_be_joined_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, token_mode=True)
    ray.fails = ConnectionError("Could not find\n any running Ray instance.")
    with pytest.raises(ConfigError, match=r"run.address=auto: cannot join that cluster \(Could not find any running"):
        cluster.connect("auto", "muzero-x")
    with pytest.raises(ConfigError, match=r"run.address=ray://head:10001: the driver must run on a node .*submit"):
        cluster.connect("ray://head:10001", "muzero-x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_cluster_that_another_user_wrote_down_is_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray notes what `auto` is in a folder that everybody may write to, and whoever is joined is shown the token."""
    ray = FakeRay(monkeypatch, token_mode=True)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    with socket.create_server(("", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        file.write_text(address)
        cluster.connect("auto", "muzero-x")
        os.chown(file, 12345, 12345)
        with pytest.raises(
            ConfigError, match=r"run.address=auto: .*ray_current_cluster.* another user \(uid 12345\).*HOST:"
        ):
            cluster.connect("auto", "muzero-x")
        cluster.connect(address, "muzero-x")
    assert ray.arguments["address"] == address


@pytest.mark.parametrize("command", ["train", "resume"])
def test_a_run_keeps_all_its_temporary_files_to_itself(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of libraries, too: torch makes `torchinductor_NAME` there, W&B a socket."""
    seen: list[tuple[str, int]] = []

    def look(_: object) -> int:
        seen.append((tempfile.gettempdir(), mode(Path(os.environ["TMPDIR"]))))
        return 0

    before = tempfile.gettempdir()
    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr(launch, command, look)
    assert launch.main([command, "cartpole" if command == "train" else str(tmp_path)]) == 0
    ((folder, open_to),) = seen
    assert folder != before
    assert open_to == 0o700
    assert not Path(folder).exists()
    assert tempfile.gettempdir() == before


# --- sockets -------------------------------------------------------------------------------------------------------


def listeners(process: psutil.Process) -> set[tuple[str, Any]]:
    """(name, address) of every socket beyond loopback that `process` accepts connections on."""
    try:
        connections = process.net_connections(kind="inet")
    except psutil.NoSuchProcess:
        return set()
    bound = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
    return {(process.name(), address) for address in bound if address.ip not in ("127.0.0.1", "::1")}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_what_listens_during_a_local_run_answers_nobody_without_the_token() -> None:
    import ray

    driver = psutil.Process()
    listening = {listener for process in (driver, *driver.children(recursive=True)) for listener in listeners(process)}
    names = {name for name, _ in listening}
    # No dashboard, no job server, no Ray Client server: these, the driver itself, and idle or busy workers.
    assert {"gcs_server", "raylet"} <= names
    others = {name for name in names if not name.startswith("ray::")} - {"gcs_server", "raylet", driver.name()}
    assert not others
    assert not {address.port for _, address in listening} & {8265, 10001, 6379}
    agents = [address for name, address in listening if name.startswith("ray::RuntimeEnv")]
    for address in agents:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(
                f"http://{address.ip}:{address.port}/get_or_create_runtime_env", b"", timeout=PATIENCE
            )
        assert caught.value.code == 401
    code = f"import ray._raylet as r; r.GcsClient(address={ray.get_runtime_context().gcs_address!r})"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for claim in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a guess"}):
        stranger = subprocess.Popen(
            [sys.executable, "-c", code], env=environment | claim, stderr=subprocess.PIPE, text=True
        )
        try:
            assert stranger.stderr is not None
            assert any("InvalidAuthToken" in line for line in stranger.stderr)  # the first answer; it asks for 20 s
        finally:
            stranger.kill()
            stranger.communicate()


# --- secrets -------------------------------------------------------------------------------------------------------


def holding(secret: str, folder: Path) -> list[Path]:
    """Files below `folder` that contain `secret`."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 3
    return [path for path in files if secret.encode() in path.read_bytes()]


def command_lines() -> str:
    lines = []
    for process in psutil.process_iter():
        try:
            lines += process.cmdline()
        except psutil.Error:
            continue  # it has ended, or is another user's
    return "\n".join(lines)


def test_the_key_of_a_serial_run_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert run_serial(small_config(run={"wandb": "offline", "learner_steps": 10}), tmp_path / "run")
    assert "WANDB_API_KEY" not in os.environ
    assert (tmp_path / "run" / "wandb").is_dir()
    assert holding(CANARY, tmp_path) == []
    assert CANARY not in "".join(capfd.readouterr())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_key_of_a_run_under_ray_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = ray_config(run={"wandb": "offline", "learner_steps": 10})
    seen: list[str] = []
    with running(config, tmp_path / "run") as (supervisor, workers, _, output):
        on_progress(
            output, lambda run_state: seen.append(command_lines()) if run_state.learner_steps and not seen else None
        )
        assert supervisor.run()
        for worker in workers.handles:
            inherited: Any = worker.actor.__ray_call__.remote(lambda _: str(sorted(os.environ.items())))
            assert CANARY not in ray.get(inherited, timeout=PATIENCE)
    assert "gcs_server" in seen[0]
    assert CANARY not in seen[0]
    assert holding(CANARY, tmp_path) == []
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    assert holding(CANARY, session) == []


def test_the_key_has_left_the_environment_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray inherits, every worker can read."""
    monkeypatch.setattr(cluster, "refuse_ray_of_others", lambda _: None)  # which other tests may have used
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    environments: list[dict[str, str]] = []

    def connect(*_: object) -> None:
        environments.append(dict(os.environ))
        raise ConfigError("far enough")

    monkeypatch.setattr(cluster, "connect", connect)
    words = ["--runs-dir", str(tmp_path), "--run.wandb", "offline", "--actors", "1", "--actors.num-cpus", "0.1"]
    assert launch.main(["train", "cartpole", *words]) == 2
    (environment,) = environments
    assert CANARY not in environment.values()


# --- files ---------------------------------------------------------------------------------------------------------

RUNS_CODE = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {
    *("torch.load", "torch.save", "np.load", "np.save", "np.savez", "numpy.load", "pd.read_pickle"),
    *("yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"),
}


def unsafe(source: str) -> list[str]:
    """Every way in `source` to read data that could be a program."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in RUNS_CODE]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in RUNS_CODE:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {keyword.arg for keyword in node.keywords}
            if called in CALLS or "allow_pickle" in keywords:
                found.append(called)
            if called == "yaml.load" and "Safe" not in ast.unparse(node):
                found.append(called)
    return found


def test_the_scan_sees_what_it_should() -> None:
    source = "import pickle\nfrom joblib import load\nnp.load(f)\nx.read(f, allow_pickle=True)\nyaml.load(f)\neval(s)"
    assert len(unsafe(source)) == 6
    assert unsafe("model.eval()\nsafetensors.numpy.load(b)\nyaml.load(f, Loader=SafeLoader)\njson.loads(s)") == []


def test_nothing_in_the_program_reads_a_format_that_can_run_code() -> None:
    found = {name: unsafe(path.read_text()) for name, path in modules().items()}
    assert len(found) > 40
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_the_page_refers_to_tests_that_exist() -> None:
    root = Path(launch.__file__).resolve().parent
    text = (root / "SECURITY.md").read_text()
    words = {word.strip("`,.:()") for word in text.split()}
    files = {word for word in words if word.startswith("tests/") and word.endswith(".py")}
    names = {word for word in words if word.startswith("test_")}
    assert len(files) >= 4
    assert len(names) >= 5
    source = "".join((root / file).read_text() for file in files)
    assert {name for name in names if f"def {name}(" not in source} == set()
