"""An environment that can exist only so many times, and runs made before observations were scaled by their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml

from muzero_ray.cli.commands import EvaluateCommand, TrainCommand
from muzero_ray.cli.finished_runs import evaluate_run
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import EnvironmentFault
from muzero_ray.evaluation.environments import evaluation_instances
from muzero_ray.evaluation.protocol import ADDED_LATER, evaluation_protocol, protocol_digest
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.run import open_run
from muzero_ray.runs.run_config import load_run_config
from muzero_ray.types import EnvSpec
from tests.odd_environments import Bandit
from tests.replay.games import stored
from tests.small_runs import assert_same_run, restored_replay, run_serial, small_config

HEADS = {"head_layers": (16,), "value": {"max": 10.0, "bins": 11}, "reward": {"max": 2.0, "bins": 5}}
NETWORK = {"kind": "mlp", "hidden": 16, "layers": (16,), **HEADS}


class Counted(Bandit):
    """Refuses to be made while another is open."""

    open_now = most = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if Counted.open_now == Counted.most:
            raise RuntimeError("the server is taken")
        Counted.open_now += 1

    def close(self) -> None:
        Counted.open_now -= 1


gymnasium.register("Counted-v0", entry_point=Counted, disable_env_checker=True, order_enforce=False)


def config(most: int, **sections: dict[str, Any]) -> Config:
    """Settings for an environment that can exist `most` times."""
    Counted.open_now, Counted.most = 0, most
    data: dict[str, dict[str, Any]] = {
        "env": {"id": f"{__name__}:Counted-v0", "instances": most},
        "network": NETWORK,
        "actors": {"envs_per_actor": most, "count": 1, "rollout_steps": 25},
    }
    for name, values in sections.items():
        data[name] = data.get(name, {}) | values
    return small_config(**data)


@pytest.mark.parametrize("most", [1, 3])
def test_a_serial_run_never_holds_more_than_can_exist(most: int, tmp_path: Path) -> None:
    run_serial(config(most, evaluation={"video": True}), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").step == 40
    assert Counted.open_now == most  # those of self-play, which the runner still holds


def test_giving_them_back_changes_nothing(tmp_path: Path) -> None:
    """What self-play goes on with after an evaluation is what it would have gone on with."""
    alike = {"episodes": 2, "final_episodes": 2}
    few = config(2, evaluation=alike)
    run_serial(few, tmp_path / "few")
    many = config(99, evaluation=alike, env={"instances": None}, actors={"envs_per_actor": 2})
    run_serial(many, tmp_path / "many")
    assert_same_run(few, tmp_path / "few", tmp_path / "many")


def test_a_run_goes_on_and_is_evaluated_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run_serial(config(1), tmp_path / "run", stop_at=10)
    Counted.open_now = 0  # the process is gone
    assert run_serial(config(1), tmp_path / "run")
    Counted.open_now = 0
    evaluate_run(EvaluateCommand(run=tmp_path / "run", episodes=4))
    assert "episodes=4" in capsys.readouterr().out
    assert Counted.open_now == 0


def test_where_more_are_made_than_can_exist_the_setting_is_named(tmp_path: Path) -> None:
    settings = config(1, env={"instances": None})
    wanted = r"the server is taken at .*\.py:\d+\. The first one could be made\. .* --env\.instances 1 --serial"
    with pytest.raises(EnvironmentFault, match=wanted):
        run_serial(settings, tmp_path / "run")
    Counted.open_now = Counted.most = 0
    with pytest.raises(EnvironmentFault) as caught:  # not one could be made: nothing to advise
        probe(settings)
    assert "--env.instances" not in str(caught.value)


@pytest.mark.parametrize(
    ("instances", "serial", "count", "places", "evaluated", "message"),
    [
        (None, False, 9, 9, None, ""),
        (1, True, 9, 1, 1, ""),
        (5, True, 1, 4, 5, ""),
        (1, True, 1, 2, 0, r"actors\.envs_per_actor=2 is above env\.instances=1: .* Use actors\.envs_per_actor=1"),
        (5, False, 2, 2, 1, ""),
        (9, False, 2, 2, 5, ""),
        (4, False, 2, 2, 0, r"env\.instances=4 is too few for actors\.count=2 .* makes 5\. .* run\.serial=True"),
        (1, False, 1, 1, 0, r"env\.instances=1 is too few .* run\.serial=True"),
    ],
)
def test_self_play_and_evaluation_share_them(
    instances: int | None, serial: bool, count: int, places: int, evaluated: int | None, message: str
) -> None:
    sections: dict[str, Any] = {
        "run": {"serial": serial},
        "env": {"instances": instances},
        "actors": {"count": count, "envs_per_actor": places},
    }
    if message:
        with pytest.raises(ValueError, match=message):
            Config.model_validate(sections)
    else:
        assert evaluation_instances(Config.model_validate(sections)) == evaluated


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_games_that_are_truncated_with_nothing_legal_are_learned_from(search: str, tmp_path: Path) -> None:
    """Played, stored, searched again, evaluated: and the last state has a value."""
    settings = small_config(
        env={"id": "tests.odd_environments:MaskedTrunc-v0"},
        network=NETWORK,
        search={"kind": search},
        reanalyze={"ratio": 1.0},
        replay={"segment_length": 400},
    )
    run_serial(settings, tmp_path / "run")
    replay = restored_replay(settings, tmp_path / "run", load_checkpoint(tmp_path / "run"))
    games = stored(replay)
    assert len(games) > 3
    stale = replay.stale_games(99)
    assert all(len(game.observations) == 9 and not game.legal[-1].any() for game in stale)  # 8 moves, and the end
    assert all(game.legal[:-1].any(axis=1).all() for game in stale)
    assert any(game.version.step > 0 for game in stale)


def old_run(folder: Path) -> Config:
    """A run of bytes between 0 and 1, its `config.yaml` as it was written before the newer settings."""
    env = {"id": "tests.odd_environments:Bandit-v0", "kwargs": {"dtype": "uint8"}, "scaling": "bytes"}
    made_with = small_config(env=env, network=NETWORK)
    run_serial(made_with, folder)
    data = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("scaling", "channels", "instances"):
        del data["env"][name]
    (folder / "config.yaml").write_text(yaml.safe_dump(data))
    return made_with


def test_an_old_run_sees_what_it_was_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "old"
    made_with = old_run(folder)
    assert load_run_config(folder) == made_with == open_run(folder)[1]
    frame = make_environment(open_run(folder)[1].env).reset(1)
    assert frame.max() == np.float32(1) / np.float32(255)
    # It is scored as it was when it ended, and goes on as it would have.
    final = [line for line in (folder / "scores.jsonl").read_text().splitlines() if '"final"' in line][-1]
    evaluate_run(EvaluateCommand(run=folder, episodes=3, seed=made_with.run.seed, json=True))
    score = yaml.safe_load(capsys.readouterr().out.splitlines()[-1])
    assert (score["returns"], score["protocol"]) == (
        yaml.safe_load(final)["returns"],
        yaml.safe_load(final)["protocol"],
    )
    asked = made_with.overridden(env=made_with.env.overridden(scaling="bounds"))
    assert TrainCommand(asked, None, "old", resume=True).resumed(folder, load_run_config(folder)).run == folder


def test_other_kinds_of_old_runs_are_what_they_were(tmp_path: Path) -> None:
    run_serial(small_config("tictactoe"), tmp_path / "board")
    data = yaml.safe_load((tmp_path / "board" / "config.yaml").read_text())
    for name in ("scaling", "channels", "instances"):
        del data["env"][name]
    (tmp_path / "board" / "config.yaml").write_text(yaml.safe_dump(data))
    assert load_run_config(tmp_path / "board").env == small_config("tictactoe").env  # arena compares them


def test_how_an_observation_is_read_is_not_part_of_the_protocol() -> None:
    spec = EnvSpec("test", (4,), "float32", 2, max_moves=500)
    base = evaluation_protocol(small_config(), spec)
    changed = small_config(
        env={"id": "CartPole-v1", "max_moves": 60, "scaling": "bytes", "channels": "last", "instances": 9}
    )
    assert evaluation_protocol(changed, spec).digest == base.digest
    before = {name: value for name, value in base.as_dict().items() if name not in ADDED_LATER}
    assert protocol_digest(before) == "fc8935dde25f"  # of scores made before there were these settings
