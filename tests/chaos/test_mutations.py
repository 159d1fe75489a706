"""Mutations change what they say, the same for one seed; the watch sees code that is run."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from chaos.checkpoints import CodeRun, Late, Original, Verdict, Watch, make_original, sample, summary, verdicts
from chaos.handmade import HANDMADE
from chaos.mutations import DAMAGE, FORGERY, PICKLE, Mutation, edit_json, sign
from chaos.numbers import PLACES, points, run_with
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint
from muzero_ray.runs.manifest import MANIFEST
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return make_original(tmp_path_factory.mktemp("original") / "run")


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file, or what stands in its place."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink() or not path.is_file():
            found[name] = "other"
        else:
            found[name] = str(path.stat().st_size) if path.stat().st_size > 1 << 30 else digest(path)
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mutation", [*DAMAGE, *HANDMADE], ids=lambda mutation: mutation.__name__)
def test_a_mutation_changes_files_and_the_same_for_one_seed(
    original: Original, mutation: Mutation, tmp_path: Path
) -> None:
    made = []
    for name in ("one", "other"):
        run = tmp_path / name / "run"
        shutil.copytree(original.folder, run)
        what = mutation(random.Random(5), run)
        made.append((what.replace(str(run), "RUN"), contents(run)))
    assert made[0] == made[1]
    assert made[0][1] != contents(original.folder) or "(they were)" in made[0][0]


@pytest.mark.parametrize("mutation", dict.fromkeys(FORGERY), ids=lambda mutation: mutation.__name__)
def test_a_forgery_has_the_right_hashes(original: Original, mutation: Mutation, tmp_path: Path) -> None:
    seen = set()
    for seed in range(6):
        run = tmp_path / str(seed)
        shutil.copytree(original.folder, run)
        assert mutation(random.Random(seed), run)
        newest = list_checkpoints(run / "checkpoints")[0]
        manifest = json.loads((newest / MANIFEST).read_text())
        seen.add(digest(newest / MANIFEST))
        body = json.dumps({**manifest, "sha256": ""}, sort_keys=True, indent=1)
        assert hashlib.sha256(body.encode()).hexdigest() == manifest["sha256"]
        files = manifest["files"] if mutation.__name__ in ("forge_bytes", "forge_tensors", "forge_chunk") else {}
        for name, entry in files.items():
            assert digest(newest / name) == entry["sha256"], name
    assert len(seen) > 1


def test_an_unchanged_checkpoint_that_was_signed_anew_is_good(original: Original, tmp_path: Path) -> None:
    shutil.copytree(original.folder, tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    sign(newest)
    assert load_checkpoint(newest).step == int(newest.name)


def test_json_is_edited_in_one_place() -> None:
    value = {"a": [1, {"b": 2}], "c": "d"}
    edits = [edit_json(value, random.Random(seed)) for seed in range(50)]
    assert value == {"a": [1, {"b": 2}], "c": "d"}
    wheres = {where for _, where in edits}
    assert {"without a", "c.='x'"} & wheres
    assert any(where.startswith("a.1.b.=") for where in wheres)


def test_damage_and_forgery_take_turns() -> None:
    chosen = sample(40)
    assert len(chosen) == 40
    assert chosen[0] in DAMAGE
    assert chosen[1] in FORGERY
    assert set(DAMAGE) | set(FORGERY) <= set(chosen)


# The verdicts.


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `function` in a process of its own: alarms, and hooks that raise, must not meet Ray."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_code() -> tuple[str, bool]:
    """What unpickling while the watch is armed raises, and whether the watch is armed then."""
    try:
        with Watch.get().armed_for(PATIENCE):
            pickle.loads(PICKLE)
    except CodeRun as error:
        return str(error), Watch.get().armed
    return "nothing", Watch.get().armed


def run_for_ever() -> tuple[str, bool]:
    """As `run_code`, of what never ends."""
    try:
        with Watch.get().armed_for(0.05):
            while True:
                pass
    except Late as error:
        return str(error), Watch.get().armed


def test_code_that_is_run_is_seen_and_refused() -> None:
    raised, armed = apart(run_code)
    assert raised.startswith("pickle.find_class")
    assert not armed


def test_what_takes_too_long_is_stopped() -> None:
    assert apart(run_for_ever) == ("longer than 0.05 s", False)


def test_problems_are_counted_and_told_once_each() -> None:
    good = [Verdict("a", "loaded", 0.1, None), Verdict("b", "CheckpointError: no", 0.3, None)]
    bad = [Verdict(name, "KeyError: 'x' (a.py:3)", 0.1, "KeyError: 'x' (a.py:3)") for name in "cd"]
    outcome = summary("all", [*good, *bad])
    assert (outcome.tries, outcome.lost, outcome.met) == (4, 2, False)
    assert outcome.figures == {"typed errors": 1, "loaded": 1, "slowest s": 0.3}
    assert outcome.notes == ["2 times: c: KeyError: 'x' (a.py:3)"]
    assert summary("all", good).met
    assert not summary("all", []).met


# The experiments themselves, in short.


def damaged(folder: Path) -> list[Verdict]:
    return verdicts([mutation for mutation in sample(100) if mutation in DAMAGE], folder, PATIENCE)


def forged(folder: Path) -> list[Verdict]:
    return verdicts([*HANDMADE, *(mutation for mutation in sample(100) if mutation in FORGERY)], folder, PATIENCE)


def test_damaged_checkpoints_are_refused_or_walked_past(tmp_path: Path) -> None:
    found = apart(damaged, tmp_path)
    assert [verdict for verdict in found if verdict.problem] == []
    assert len(found) == 50


def test_forged_checkpoints_are_refused_or_loaded(tmp_path: Path) -> None:
    found = apart(forged, tmp_path)
    assert [verdict for verdict in found if verdict.problem] == []
    assert len(found) == 62
    assert {verdict.result.split(":")[0] for verdict in found} >= {"loaded", "CheckpointError"}


def test_every_place_gets_every_value() -> None:
    made = points(50)
    assert {place: sum(point.place == place for point in made) for place in PLACES} == dict.fromkeys(PLACES, 5)
    assert len({(point.place, str(point.value)) for point in made}) == 3 * len(PLACES)


@pytest.mark.parametrize("place", ["gradient", "reward", "weight", "optimizer state"])
def test_weights_stay_finite(place: str, tmp_path: Path) -> None:
    (point,) = (point for point in points(len(PLACES)) if point.place == place)
    found = run_with(point, tmp_path / "run")
    assert found.bad == []
    assert found.published
