"""Files beside the checkpoints: damaged, foreign, huge, missing. And two programs in one folder."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from chaos.conditions.place import LONG, Place, condition

FORGED = 1 << 40


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def insert(path: Path, at: int, line: str) -> None:
    """Put a line where it does not belong."""
    old = path.read_text().splitlines()
    path.write_text("\n".join([*old[:at], line, *old[at:]]) + "\n")


@condition("a bad line in metrics.jsonl", "`resume` names the file and the line, and goes on")
def bad_metrics(place: Place) -> None:
    insert(place.trained() / "metrics.jsonl", 1, '{"learner_steps": nonsense')
    place.expect(place.launch("resume", place.run, "--iterations", 80), "metrics.jsonl.*line 2", "trained: ")


@condition("a bad line in scores.jsonl", "`resume` names the file and the line, and goes on")
def bad_scores(place: Place) -> None:
    insert(place.trained() / "scores.jsonl", 0, "[1, 2")
    place.expect(place.launch("resume", place.run, "--iterations", 80), "scores.jsonl.*line 1", "trained: ")


@condition("metrics.jsonl is empty, then gone", "`resume` says what is missing, and goes on")
def no_metrics(place: Place) -> None:
    metrics = place.trained() / "metrics.jsonl"
    metrics.write_text("")
    place.expect(place.launch("resume", place.run, "--iterations", 80), "trained: ")
    metrics.unlink()
    place.expect(place.launch("resume", place.run, "--iterations", 100), "trained: ")


@condition("terminal escapes and NaN in scores.jsonl", "`report` shows neither: one line of error, or clean text")
def hostile_scores(place: Place) -> None:
    scores = place.trained() / "scores.jsonl"
    scores.write_text(scores.read_text().replace('"return_mean": ', '"return_mean": NaN, "x": '))
    insert(scores, 0, '{"kind": "\\u001b]0;owned\\u0007", "learner_step": "\\u001b[31m"}')
    for words in (("report", place.run), ("report", place.run, "--json")):
        ended = place.expect(place.launch(*words), code=(0, 1, 2), never="nan,")
        place.holds("\x1b" not in ended.said and "\x07" not in ended.said, "a terminal escape came through")


@condition("metrics.jsonl of 6 GB", "`resume` and `report` with 12 GB of address space: they go on, or say so")
def huge_metrics(place: Place) -> None:
    with (place.trained() / "metrics.jsonl").open("r+b") as file:
        file.truncate(6 << 30)
    small = ["prlimit", f"--as={12 << 30}"]
    ended = place.call([*small, *place.command("resume", place.run, "--iterations", 80)])
    place.expect(ended, "trained: " if ended.code == 0 else "metrics.jsonl", code=(0, 1))
    place.expect(place.call([*small, *place.command("report", place.run)]), code=(0, 1))


@condition("a manifest that claims files of 1 TB", "the checkpoint before it is taken, and this is said")
def forged_manifest(place: Place) -> None:
    manifest = place.trained() / "checkpoints" / "60" / "MANIFEST.json"
    content = json.loads(manifest.read_text())
    for entry in content["files"].values() if isinstance(content["files"], dict) else content["files"]:
        entry["size"] = FORGED
    manifest.write_text(json.dumps(content))
    place.expect(place.launch("evaluate", place.run, "--episodes", 1), "return_mean=", "40")


@condition("a manifest of 6 GB", "the checkpoint before it is taken, and this is said")
def huge_manifest(place: Place) -> None:
    with (place.trained() / "checkpoints" / "60" / "MANIFEST.json").open("r+b") as file:
        file.truncate(6 << 30)
    place.expect(place.launch("evaluate", place.run, "--episodes", 1), "return_mean=", "40")


@condition("one bit of the newest weights flipped", "the checkpoint before it is taken, and this is said")
def flipped_bit(place: Place) -> None:
    model = place.trained() / "checkpoints" / "60" / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-5] ^= 4
    model.write_bytes(bytes(content))
    place.expect(place.launch("evaluate", place.run, "--episodes", 1), "return_mean=", "damaged|SHA-256")


@condition(
    "a replay chunk is missing", "`evaluate` works; `resume` says what is lost and which option goes on without it"
)
def lost_chunk(place: Place) -> None:
    chunks = sorted((place.trained() / "replay").rglob("*.*"))
    place.holds(bool(chunks), "the run has no chunk of replay")
    for chunk in chunks[:1]:
        chunk.unlink()
    place.expect(place.launch("evaluate", place.run, "--episodes", 1), "return_mean=")
    ended = place.expect(place.launch("resume", place.run, "--iterations", 80), "chunk|replay", code=(0, 1))
    if ended.code:
        place.expect(ended, "--[a-z-]+", code=1)


@condition("config.yaml is damaged", "exit code 2; the file is named; the checkpoints are as they were")
def damaged_config(place: Place) -> None:
    config = place.trained() / "config.yaml"
    content = config.read_bytes()
    config.write_bytes(b"\x00\xff{{{")
    place.expect(place.launch("resume", place.run, "--iterations", 80), "config.yaml", code=2)
    config.write_bytes(content)
    place.goes_on()


@condition("config.yaml is a FIFO", "exit code 2; nothing hangs")
def config_is_a_fifo(place: Place) -> None:
    config = place.trained() / "config.yaml"
    config.unlink()
    os.mkfifo(config)
    place.expect(place.launch("evaluate", place.run), "config.yaml", code=(1, 2))


@condition("`--config` is a FIFO, or /dev/zero", "exit code 2; nothing hangs, nothing is read without end")
def config_without_end(place: Place) -> None:
    os.mkfifo(place.folder / "pipe")
    place.expect(place.launch("train", "--config", place.folder / "pipe"), "pipe", code=2)
    place.expect(place.launch("train", "--config", "/dev/zero"), "/dev/zero", code=2)


@condition("files of others among the checkpoints", "they are left alone; `resume` goes on")
def foreign_entries(place: Place) -> None:
    root = place.trained() / "checkpoints"
    (root / "notes.txt").write_text("mine")
    (root / "99999").write_text("not a folder")
    (root / "7").symlink_to("/nowhere")
    place.expect(place.launch("resume", place.run, "--iterations", 80), "trained: ")
    place.holds((root / "notes.txt").read_text() == "mine", "somebody's notes are gone")


@condition("scores.jsonl is a folder", "exit code 1; it is named; nothing else changes")
def scores_is_a_folder(place: Place) -> None:
    scores = place.trained() / "scores.jsonl"
    scores.rename(scores.with_suffix(".old"))
    scores.mkdir()
    place.expect(place.launch("resume", place.run, "--iterations", 80), "scores.jsonl", code=(0, 1))


@condition(
    "the run is finished already", "`resume` says so and names the option that goes on; no score is written twice"
)
def finished(place: Place) -> None:
    before = (place.trained() / "scores.jsonl").read_text()
    place.expect(place.launch("resume", place.run), "--iterations", code=(0, 2))
    place.holds((place.run / "scores.jsonl").read_text() == before, "scores were written again")


@condition("a config.yaml of a named run as `--config`", "a new run starts from it")
def config_of_a_run(place: Place) -> None:
    config = place.trained() / "config.yaml"
    ended = place.launch("train", "--config", config, "--runs-dir", place.folder / "new", "--iterations", 20)
    place.expect(ended, "trained: ")


@condition("two `resume` of one run", "the second is refused and names host and process; the first is not hurt")
def two_writers(place: Place) -> None:
    run = place.trained()
    program = place.started(*place.command("resume", run, *LONG))
    place.waits_for(lambda: "resuming" in program.printed(), program, "the first one")
    place.expect(place.launch("resume", run, "--iterations", 100), str(program.pid), code=(1, 2))
    place.expect(place.train(name="run"), str(program.pid), code=2, never="Go on with")
    os.kill(program.pid, signal.SIGTERM)
    place.stops(program, "checkpoint")
    place.goes_on()


@condition(
    "`train --resume` beside the same run before its first checkpoint",
    "the second waits or is refused; the first trains on",
)
def two_starts(place: Place) -> None:
    program = place.started(*place.training("--run.checkpoint-steps", 10**6, *LONG))
    place.waits_for(place.run.exists, program, "the first one")
    place.expect(place.call(place.training("--resume", *LONG)), str(program.pid), code=(1, 2))
    place.holds(program.code is None, "the first one has ended")
    os.kill(program.pid, signal.SIGTERM)
    place.stops(program, "checkpoint")
    place.goes_on()


@condition("the run was killed (kill -9)", "`train --resume` goes on at once: its lock is stale")
def killed(place: Place) -> None:
    program = place.started(*place.training(*LONG))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    program.kill_group()
    again = place.started(*place.training("--resume", *LONG))
    place.waits_for(lambda: "learner steps/s" in again.printed(), again, "the resumed run")
    place.holds("resuming at learner step" in again.printed(), "it began anew")
    os.kill(again.pid, signal.SIGTERM)
    place.stops(again, "checkpoint")


@condition("`evaluate` again and again beside a running job", "each finds a good checkpoint")
def evaluated_meanwhile(place: Place) -> None:
    program = place.started(*place.training(*LONG, "--run.checkpoint-steps", 1))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    script = (
        "import sys; from pathlib import Path; from muzero_ray.runs.checkpoint import load_checkpoint\n"
        "for _ in range(500): load_checkpoint(Path(sys.argv[1]))\n"
    )
    python = place.command()[0]
    ended = place.call([python, "-c", script, str(place.run)])
    place.expect(ended)
    os.kill(program.pid, signal.SIGTERM)
    place.stops(program)
