"""Config files with a mistake in them, and hostile ones: one line with place, reason and remedy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from muzero_ray import launch
from muzero_ray.config import files as config_file
from muzero_ray.config import yaml_file as config_yaml
from muzero_ray.errors import ConfigError

# (file, what stands before the reason, reason and got, remedy): each file holds one mistake.
MISTAKES = {
    "unknown key": (
        "env:\n  frame_stak: 4\n",
        "2: env.frame_stak",
        "unknown key (got 4)",
        "Did you mean env.frame_stack?",
    ),
    "openings of no board game": (
        "env:\n  opening_moves: 4\n",
        "2",
        "env.opening_moves=4 is for board games, and env.kind=gymnasium has none",
        "Leave it at 0",
    ),
    "dashes": (
        "env:\n  frame-stack: 4\n",
        "2: env.frame-stack",
        "unknown key (got 4)",
        "Did you mean env.frame_stack?",
    ),
    "key of another section": (
        "network:\n  batch_size: 8\n",
        "2: network.batch_size",
        "unknown key (got 8)",
        "Did you mean learner.batch_size?",
    ),
    "unknown section": ("lerner:\n  lr: 1\n", "1: lerner", "unknown key (got {'lr': 1})", "Did you mean learner?"),
    "nothing like it": ("run:\n  zzz: 1\n", "2: run.zzz", "unknown key (got 1)", "Choose from name, runs_dir, seed"),
    "text for an int": (
        "run:\n  seed: abc\n",
        "2: run.seed",
        "must be a whole number (got 'abc')",
        "Write one such as 3",
    ),
    "quoted int": ("run:\n  seed: '3'\n", "2: run.seed", "must be a whole number (got '3')", "Write one such as 3"),
    "octal": ("run:\n  seed: 0123\n", "2: run.seed", "must be a whole number (got '0123')", "Write one such as 3"),
    "clock for an int": ("run:\n  seed: 12:30\n", "2: run.seed", "must be a whole number (got '12:30')", "Write one"),
    "boolean for an int": ("run:\n  seed: true\n", "2: run.seed", "must be a whole number (got True)", "Write one"),
    "fraction for an int": ("run:\n  seed: 1.5\n", "2: run.seed", "must be a whole number (got 1.5)", "Write one"),
    "no for a boolean": (
        "\n\nrun:\n  serial: no\n",
        "4: run.serial",
        "must be true or false (got 'no')",
        "Write true or",
    ),
    "one for a boolean": (
        "run:\n  serial: 1\n",
        "2: run.serial",
        "must be true or false (got 1)",
        "Write true or false",
    ),
    "number for text": ("env:\n  id: 7\n", "2: env.id", "must be text (got 7)", "Put it in quotes"),
    "empty text": ("env:\n  id: ''\n", "2: env.id", "must not be empty (got '')", "Write a name"),
    "below the range": (
        "learner:\n  batch_size: 0\n",
        "2: learner.batch_size",
        "must be above 0 (got 0)",
        "Use a value above",
    ),
    "above the range": (
        "learner:\n  discount: 1.5\n",
        "2: learner.discount",
        "must be at most 1.0 (got 1.5)",
        "at most 1.0",
    ),
    "infinite": ("learner:\n  lr: .inf\n", "2: learner.lr", "must be finite (got inf)", "Write an ordinary number"),
    "overflowing": ("learner:\n  lr: 1e999\n", "2: learner.lr", "must be finite (got inf)", "Write an ordinary number"),
    "not a number": ("learner:\n  lr: .nan\n", "2: learner.lr", "must be finite (got nan)", "Write an ordinary number"),
    "wrong choice": (
        "search:\n  kind: gumble\n",
        "2: search.kind",
        "must be one of puct, gumbel (got 'gumble')",
        "Did you mean gumbel?",
    ),
    "wrong number of a few": (
        "network:\n  kind: resnet\n  downsample: 8\n",
        "3: network.downsample",
        "must be one of 1, 4, 16 (got 8)",
        "Choose",
    ),
    "wrong form": (
        "learner:\n  device: gpu\n",
        "2: learner.device",
        "is not of the expected form (got 'gpu')",
        "Use auto, cpu, cuda, cuda:0 (or another number) or mps",
    ),
    "scalar for a list": (
        "network:\n  layers: 64\n",
        "2: network.layers",
        "must be a list (got 64)",
        "Write it as [1, 2]",
    ),
    "bad item of a list": (
        "network:\n  layers:\n    - 64\n    - 0\n",
        "4: network.layers[1]",
        "must be above 0 (got 0)",
        "Use a value above 0",
    ),
    "list too short": (
        "search:\n  value_bounds: [1]\n",
        "2: search.value_bounds",
        "must hold 2 values (got [1])",
        "Write 2 of them",
    ),
    "list too long": (
        "search:\n  kind: puct\n  temperature: [1, 1, 1, 1]\n",
        "3: search.temperature",
        "must hold 3 values (got [1, 1, 1, 1])",
        "Write 3 of them",
    ),
    "section without settings": (
        "learner:\nrun:\n  seed: 1\n",
        "1: learner",
        "must be a section of settings (got None)",
        "or delete the line",
    ),
    "nested value that is no number": (
        "env:\n  kwargs:\n    a: [1, {b: .nan}]\n",
        "3: env.kwargs.a",
        "holds a value of a type that is not supported (got [1, {'b': nan}])",
        "Write true, false, null, finite numbers, text",
    ),
    "twice": ("run:\n  seed: 1\n  name: x\n  seed: 2\n", "4: run.seed", "given twice (first on line 2)", "Remove one"),
    "key that is no text": ("env:\n  kwargs:\n    1: 2\n", "3: env.kwargs", "keys must be text", "use quotes"),
    "within a section": (
        "replay:\n  capacity: 1000\n  min_size: 5000\n",
        "3",
        "replay.min_size=5000 is above replay.capacity=1000",
        "Lower min_size or raise capacity",
    ),
    "against a default": (
        "replay:\n  capacity: 1000\n",
        "2",
        "replay.min_size=2000 is above replay.capacity=1000",
        "Lower min_size or raise capacity",
    ),
    "shards that hold no segment": (
        "replay:\n  shards: 4\n  capacity: 1500\n  min_size: 500\n",
        "2",
        "replay.shards=4 leaves each 375 of replay.capacity=1500, less than one segment (replay.segment_length=400)",
        "Use fewer shards or raise capacity",
    ),
    "shards that share actors unevenly": (
        "replay:\n  shards: 2\nactors:\n  count: 3\n",
        "2",
        "replay.shards=2 does not divide actors.count=3",
        "Make actors.count a multiple of it",
    ),
    "a shard without an actor": (
        "replay:\n  shards: 2\nactors:\n  count: 1\n",
        "2",
        "replay.shards=2 does not divide actors.count=1",
        "Make actors.count a multiple of it",
    ),
    "shards in one process": (
        "replay:\n  shards: 2\nrun:\n  serial: true\n",
        "2",
        "replay.shards=2 asks for as many processes, and run.serial=True has only one",
        "Use replay.shards=1",
    ),
    "learners with uneven parts of a batch": (
        "learner:\n  batch_size: 100\n  workers: 3\n",
        "3",
        "learner.workers=3 does not divide learner.batch_size=100",
        "Make batch_size a multiple of it",
    ),
    "learners on one device": (
        "learner:\n  workers: 2\n  device: cuda:1\n",
        "3",
        "learner.device=cuda:1 names one device only, for learner.workers=2",
        "Use auto, cuda or cpu",
    ),
    "learners in one process": (
        "learner:\n  workers: 2\nrun:\n  serial: true\n",
        "2",
        "learner.workers=2 asks for as many processes, and run.serial=True has only one",
        "Use learner.workers=1",
    ),
    "learners without a GPU of their own": (
        "learner:\n  workers: 2\n  gpus: 0.5\n",
        "3",
        "learner.gpus=0.5 for each of learner.workers=2",
        "Use learner.gpus=1",
    ),
    "a GPU of a cluster that is not reserved": (
        "learner:\n  device: cuda\nrun:\n  address: auto\n",
        "2",
        "learner.device=cuda needs a GPU, and learner.gpus=0 reserves none",
        "Use learner.gpus=1",
    ),
    "deeper section": (
        "network:\n  value:\n    bins: 600\n",
        "3",
        "network.value.bins=600 is even",
        "Use an odd number",
    ),
    "across sections": (
        "run:\n  seed: 1\nlearner:\n  batch_size: 5000\n",
        "4",
        "learner.batch_size=5000 is above replay.min_size=2000",
        "Raise replay.min_size or lower the batch size",
    ),
    "anchor": ("run:\n  seed: &a 1\n", "2", "anchors (&) and aliases (*) are not supported", "Write the value out"),
    "tag": ("run: !!python/object/apply:os.system ['true']\n", "1", "tags are not supported", "Remove it"),
    "tab": (
        "run:\n\tseed: 1\n",
        "2",
        "found character '\\t' that cannot start any token",
        "Check indentation (spaces, no tabs)",
    ),
    "broken quotes": ("run:\n  name: 'x\n", "3", "found unexpected end of stream", "Check indentation"),
    "two documents": (
        "run:\n  seed: 1\n---\nrun:\n  seed: 2\n",
        "3",
        "but found another document",
        "Check indentation",
    ),
    "a list of settings": (
        "- run\n",
        "1",
        "must be sections of settings (got ['run'])",
        "Start with a line such as 'env:'",
    ),
    "unprintable": ("run:\n  name: a\x07\n", "2", "unprintable character U+0007", "Remove it"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_file_gives_one_line_with_place_reason_and_remedy(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, place, reason, remedy = MISTAKES[name]
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert launch.main(["train", "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {file}:{place}: {reason}")
    assert remedy in err.partition(reason)[2]
    assert err.count("\n") == 1


def test_every_mistake_of_a_file_is_listed_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run:\n  seed: x\nenv:\n  kwargs:\n    a: [.inf]\nlearner:\n  lr: 0\n  bach_size: 1\n")
    with pytest.raises(ConfigError) as caught:
        config_file.load_config(file)
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 settings cannot be used:"
    assert sorted(line.split(": ")[1] for line in lines[1:]) == [
        "env.kwargs.a",
        "learner.bach_size",
        "learner.lr",
        "run.seed",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"run:\n  name: \xff\n", "is not UTF-8"),
        (b"#" * ((1 << 20) + 1), "is too large"),
        (b"[" * 2_000, "nested deeper than 16 levels"),
        (b"a: " + b"{b: " * 50, "nested deeper than 16 levels"),
        (b"run:\n  seed: " + b"9" * 10_000 + b"\n", "number with 10000 digits"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors (&) and aliases (*) are not supported"),
        (b"{? {a: b} : c}", "keys must be text"),
    ],
)
def test_hostile_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config_file.load_config(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "breakout.yaml").write_text("run: {}\n")
    with pytest.raises(ConfigError, match=r"no such config file\. Did you mean breakout\.yaml\?"):
        config_file.load_config(tmp_path / "breakot.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        config_file.load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e6", 1e6),
        (".5", 0.5),
        ("-2.", -2.0),
        ("0.0", 0.0),
        ("-.inf", -math.inf),
        ("3", 3),
        ("+3", 3),
        ("0", 0),
        ("1_000_000", 1_000_000),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        *(
            (word, word)
            for word in ["no", "yes", "on", "off", "0123", "0o17", "0x1F", "12:30", "1_", "1e", ".", "2024-01-01"]
        ),
    ],
)
def test_words_mean_what_people_expect(text: str, value: Any, tmp_path: Path) -> None:
    assert config_yaml.parse_scalar(text) == value
    assert type(config_yaml.parse_scalar(text)) is type(value)
    file = tmp_path / "mine.yaml"
    file.write_text(f"env:\n  kwargs:\n    word: {text}\n    quoted: '{text}'\n")
    kwargs = config_yaml.read_yaml(file).data["env"]["kwargs"]
    assert kwargs == {"word": value, "quoted": text}


def test_whole_floats_do_for_whole_numbers(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "run:\n  learner_steps: 1e6\n  minutes: 3\nnetwork:\n  layers: [32, 6.4e1]\nenv:\n  kwargs: {a: 2.0}\n"
    )
    config = config_file.load_config(file)
    assert (config.run.learner_steps, config.run.minutes, config.network.layers) == (1_000_000, 3.0, (32, 64))
    assert isinstance(config.env.kwargs["a"], float)  # only where a whole number is wanted
