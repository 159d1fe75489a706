"""Networks, searches and environments from outside the package: the example is executed, and mistakes are said."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import yaml

from muzero_ray.config import plugins
from muzero_ray.config.files import WRITTEN_TOGETHER, load_config, load_preset
from muzero_ray.config.registration import register_environment, register_network, register_search
from muzero_ray.config.schema import Config, EnvConfig, MlpConfig, NetworkConfig, SearchConfig
from muzero_ray.control.probe import probe
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.gymnasium_env import GymnasiumEnvironment
from muzero_ray.envs.registry import describe_environment, make_environment
from muzero_ray.errors import ConfigError, EnvironmentFault
from muzero_ray.inference.build import make_engine
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks.build import build_network
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.run_config import load_run_config
from tests.command_lines import refused, train
from tests.small_runs import TINY_HEADS, run_serial, small_config

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "plugin"
NAME = "lookahead_plugin"


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As they were, after the test; and the example can be imported, but is not."""
    for section in (EnvConfig, NetworkConfig, SearchConfig):
        monkeypatch.setattr(section.kinds, "_kinds", dict(section.kinds._kinds))
    monkeypatch.syspath_prepend(EXAMPLE)
    plugins.import_installed.cache_clear()
    yield
    sys.modules.pop(NAME, None)
    plugins.import_installed.cache_clear()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported the example."""
    sys.modules.pop(NAME, None)
    for section in (NetworkConfig, SearchConfig):
        own = {name: kind for name, kind in section.kinds._kinds.items() if kind.settings.__module__ != NAME}
        monkeypatch.setattr(section.kinds, "_kinds", own)


def example(**sections: Any) -> Config:
    plugins.import_plugins([NAME])
    own = {"network": {"kind": "gru", "width": 8, **TINY_HEADS}, "search": {"kind": "lookahead", "sharpness": 4.0}}
    config = small_config().to_dict() | own | sections
    config["run"] |= {"plugins": [NAME], "learner_steps": 4, "checkpoint_steps": 4, "log_steps": 2}
    return Config.model_validate(config)


def test_the_example_trains_and_its_run_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = example(), tmp_path / "run"
    assert run_serial(config, folder)
    assert load_checkpoint(folder).step == 4
    forget(monkeypatch)
    foreign = load_run_config(folder, plugins=False)
    assert (foreign.search.kind, foreign.network.kind, foreign.env) == ("lookahead", "gru", config.env)
    assert NAME not in sys.modules
    again = load_run_config(folder)
    assert again.to_dict() == config.to_dict()
    assert again.search.model_dump()["sharpness"] == 4.0


def test_auto_takes_torch_for_a_network_that_no_compiled_engine_knows() -> None:
    config = example()
    network = build_network(config, probe(config))
    engine = make_engine(network, engine="auto", bf16=False, threads=1)
    assert type(engine) is TorchEngine
    assert engine.initial(np.zeros((3, 4), np.float32)).hidden.shape == (3, 8)
    with pytest.raises(ConfigError, match=r"actors\.engine=compiled: no compiled engine knows .*GruDynamics"):
        make_engine(network, engine="compiled", bf16=False, threads=1)


def test_the_command_line_knows_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = f"cartpole --run.plugins {NAME} --network.kind gru --network.width 9 --search.kind lookahead"
    config = train(f"{line} --search.sharpness 2").config
    assert (config.network.model_dump()["width"], config.search.model_dump()["sharpness"]) == (9, 2.0)
    assert refused("train", *line.split(), "--search.sharpness", "-1").startswith(
        "--search.sharpness: must be above 0.0 (got -1)"
    )
    assert "is a setting of search.kind=lookahead, and search.kind is puct (got 3)" in refused(
        "train", "cartpole", "--run.plugins", NAME, "--search.sharpness", "3"
    )
    forget(monkeypatch)
    file = tmp_path / "mine.yaml"
    file.write_text(f"run:\n  plugins: [{NAME}]\nsearch:\n  kind: lookahead\n")
    assert load_config(file).search.kind == "lookahead"


def test_a_process_that_is_sent_a_config_imports_its_plugins() -> None:
    config = Config.model_validate({"run": {"plugins": (NAME,)}})
    code = (
        "import pickle, sys; config = pickle.loads(sys.stdin.buffer.read())\n"
        "print(config.search.kinds.names, config.network.kinds.names, 'torch' in sys.modules)"
    )
    path = os.pathsep.join([str(ROOT), str(EXAMPLE)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(config),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.decode().strip() == "('puct', 'gumbel', 'lookahead') ('mlp', 'resnet', 'gru') False"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, as pip would install it; nothing has imported it yet."""
    info = tmp_path / "lookahead_plugin-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lookahead-plugin\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[muzero_ray.plugins]\nlookahead = {NAME}\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_is_found_by_its_entry_point() -> None:
    assert Config.model_validate({"search": {"kind": "lookahead"}}).search.model_dump()["sharpness"] == 5.0
    assert train("cartpole --network.kind gru").config.network.kind == "gru"


@pytest.mark.usefixtures("installed")
def test_override_keeps_the_settings_of_a_kind_that_nothing_imported_yet() -> None:
    base = Config().override({"search.simulations": 50, "search.c_scale": 0.5})
    assert NAME not in sys.modules
    search = base.override({"search.kind": "lookahead"}).search.model_dump()
    assert (search["kind"], search["simulations"], search["sharpness"]) == ("lookahead", 50, 5.0)
    assert "c_scale" not in search


@pytest.mark.usefixtures("installed")
def test_a_file_keeps_what_its_base_says_for_a_kind_that_nothing_imported_yet(tmp_path: Path) -> None:
    simulations = load_preset("connect4").search.simulations
    assert simulations != SearchConfig.model_fields["simulations"].default
    file = tmp_path / "mine.yaml"
    file.write_text("base: connect4\nsearch:\n  kind: lookahead\n")
    assert load_config(file).search.simulations == simulations


@pytest.mark.usefixtures("installed")
def test_reading_a_run_without_its_plugins_imports_none(tmp_path: Path) -> None:
    written = set().union(*WRITTEN_TOGETHER.values()) - {"kind"}
    section = {"kind": "lookahead", **dict.fromkeys(sorted(written), 1)}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"search": section}))
    assert load_run_config(tmp_path, plugins=False).search.kind == "lookahead"
    assert NAME not in sys.modules


class SlowPoleConfig(EnvConfig):
    """CartPole with a gravity of one's own."""

    kind: Literal["slow_pole"] = "slow_pole"
    gravity: float = 9.8


def build_slow_pole(cfg: SlowPoleConfig, *, evaluation: bool, render: bool) -> Environment:
    environment = GymnasiumEnvironment("CartPole-v1", {}, render=render)
    environment._env.unwrapped.gravity = cfg.gravity  # type: ignore[attr-defined]
    assert not evaluation
    return environment


def test_an_adapter_has_settings_of_its_own() -> None:
    register_environment(SlowPoleConfig, build_slow_pole)
    config = train("cartpole --env.kind slow_pole --env.gravity 1.5").config
    assert config.env == SlowPoleConfig(id="CartPole-v1", gravity=1.5, max_moves=config.env.max_moves)
    assert probe(config).spec.num_actions == 2
    assert config.to_dict()["env"]["gravity"] == 1.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--run.plugins", "no_such_package"],
            "run.plugins=no_such_package: module 'no_such_package' cannot be imported. Where the run starts",
        ),
        (["--search.kind", "lookahead"], "--search.kind: must be one of puct, gumbel (got 'lookahead')"),
    ],
)
def test_what_cannot_be_found_is_said(words: list[str], message: str) -> None:
    assert message in refused("train", "cartpole", *words)


def test_an_error_inside_a_plugin_is_not_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_plugin.py").write_text("\nraise ImportError('cannot import name x')\n")
    said = refused("train", "cartpole", "--run.plugins", "broken_plugin")
    assert f"run.plugins=broken_plugin: importing it failed (ImportError: cannot import name x at {tmp_path}" in said
    assert "broken_plugin.py:2). Correct that, or name another module" in said


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no_such_package:build", "module 'no_such_package' cannot be imported"),
        (f"{__name__}:bild", f"importing it failed (AttributeError: module '{__name__}' has no attribute 'bild'"),
    ],
)
def test_a_builder_that_cannot_be_imported_is_named(place: str, reason: str) -> None:
    register_environment(SlowPoleConfig, place)
    with pytest.raises(ConfigError, match=re.escape(f"env.kind=slow_pole, made by {place}: {reason}")):
        make_environment(SlowPoleConfig())


@pytest.mark.parametrize("error", [KeyError("gravity"), SystemExit(3)])
@pytest.mark.parametrize("make", [make_environment, describe_environment])
def test_an_adapter_that_cannot_be_built_is_a_fault(make: Callable[[EnvConfig], object], error: BaseException) -> None:
    def build(*_: object, **__: object) -> Environment:
        raise error

    register_environment(SlowPoleConfig, build)
    what = re.escape(f"environment CartPole-v1 could not be made: {type(error).__name__}: {error} at {__file__}:")
    with pytest.raises(EnvironmentFault, match=what):
        make(SlowPoleConfig())


def test_what_cannot_be_registered_is_refused() -> None:
    class Nameless(SearchConfig):
        kinds: ClassVar[Any] = SearchConfig.kinds

    class Mlp(NetworkConfig):
        kind: Literal["mlp"] = "mlp"

    with pytest.raises(TypeError, match="Nameless cannot be registered as a kind of search: it must extend"):
        register_search(Nameless, "nowhere:build")
    for no_settings, name in (
        (Environment, "Environment"),
        (build_slow_pole, "build_slow_pole"),
        (MlpConfig(), "kind='mlp'"),
    ):
        with pytest.raises(TypeError, match=rf"{name}.* cannot be registered as a kind of network: it must extend"):
            register_network(no_settings, "nowhere:build")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"network\.kind=mlp is registered by muzero_ray\.config\.network\.MlpConfig"):
        register_network(Mlp, "nowhere:build")
    assert NetworkConfig.kinds.find("mlp") == (MlpConfig, "muzero_ray.networks.mlp:build_mlp")
