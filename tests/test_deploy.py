"""The files in deploy/, as far as they can be judged without AWS, Kubernetes and Slurm."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from muzero_ray.cli.commands import SubmitCommand, TrainCommand
from muzero_ray.cli.parse import parse_args
from tests.patience import PATIENCE, until

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SLURM = DEPLOY / "slurm.sh"

POD_KEYS = {"terminationGracePeriodSeconds", "securityContext", "containers", "volumes"}
JOB_KEYS = {
    *("entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"),
    *("rayClusterSpec", "activeDeadlineSeconds", "suspend", "runtimeEnvYAML", "submitterPodTemplate", "metadata"),
}
CLUSTER_KEYS = {
    *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"),
    *("workerGroupSpecs", "suspend"),
}
GROUP_KEYS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
"""Fields of ray.io/v1 and of pods: what KubeRay does not know, a cluster would refuse."""


def rayjob() -> dict[str, Any]:
    (job,) = [d for d in yaml.safe_load_all((DEPLOY / "kuberay-rayjob.yaml").read_text()) if d["kind"] == "RayJob"]
    return job  # type: ignore[no-any-return]


def commented_command(file: str, begin: str) -> list[str]:
    """The words that follow `begin` in the comments a file opens with, its lines joined."""
    lines = [line.lstrip("#").strip() for line in (DEPLOY / file).read_text().splitlines() if line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return shlex.split(text[text.index(begin) + len(begin) :].split("\n")[0])


# --- Ray cluster ---------------------------------------------------------------------------------------------------


def test_ray_takes_the_cluster_file() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text()))
    util.validate_config(config)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["max_workers"] == 0
    assert "InstanceMarketOptions" not in types[config["head_node_type"]]["node_config"]
    assert types["gpu_learner"]["min_workers"] == 1
    assert sum(kind["max_workers"] for kind in types.values()) == config["max_workers"]
    with pytest.raises(Exception, match="no_such_key"):
        util.validate_config(config | {"no_such_key": 1})


def test_the_cluster_asks_for_a_token_and_shows_its_dashboard_to_nobody() -> None:
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    (start,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_JOB_STOP_WAIT_TIME_S=60" in start


def test_its_command_is_one_that_submit_takes() -> None:
    command = parse_args(["submit", *commented_command("ray-cluster.yaml", "launch.py submit ")])
    assert isinstance(command, SubmitCommand)
    volume = "--volume /home/ubuntu/runs:/runs"
    assert volume in yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())["docker"]["run_options"]
    assert command.folder.is_relative_to("/runs")
    assert command.config.learner.gpus == 1


# --- KubeRay -------------------------------------------------------------------------------------------------------


def test_the_rayjob_has_the_fields_that_kuberay_knows() -> None:
    job = rayjob()
    assert job["apiVersion"] == "ray.io/v1"
    assert job["metadata"]["name"]
    spec = job["spec"]
    assert {"entrypoint", "rayClusterSpec"} <= spec.keys() <= JOB_KEYS
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode")
    cluster = spec["rayClusterSpec"]
    assert {"headGroupSpec", "workerGroupSpecs", "rayVersion"} <= cluster.keys() <= CLUSTER_KEYS
    assert {"rayStartParams", "template"} == cluster["headGroupSpec"].keys()
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() == GROUP_KEYS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert {"containers", "securityContext"} <= pod.keys() <= POD_KEYS
        (container,) = pod["containers"]
        # Ray counts CPUs by the limits; Kubernetes wants GPUs as limits.
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}


def test_the_rayjob_is_private_survives_its_head_and_trains() -> None:
    spec = rayjob()["spec"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    pod = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 60
    python, program, *words = shlex.split(spec["entrypoint"])
    assert (python, program) == ("python", "/opt/muzero_ray/launch.py")
    command = parse_args(words)
    assert isinstance(command, TrainCommand)
    assert spec["backoffLimit"] > 0
    assert command.resume
    assert command.config.run.address == "auto"
    assert command.config.run.runs_dir in [m["mountPath"] for m in pod["containers"][0]["volumeMounts"]]
    assert not [e for e in pod["containers"][0]["env"] if "KEY" in e["name"] or "TOKEN" in e["name"]]


def test_all_files_name_the_same_ray() -> None:
    texts = [(DEPLOY / name).read_text() for name in ("ray-cluster.yaml", "kuberay-rayjob.yaml", "Dockerfile")]
    images = {version for text in texts for version in re.findall(r"rayproject/ray:([\d.]+)-", text)}
    assert images == {rayjob()["spec"]["rayClusterSpec"]["rayVersion"]}


def test_images_are_pinned_and_get_the_versions_that_ci_tests() -> None:
    """The tag names one version of Ray, that of constraints.txt; pip takes the rest from there."""
    ray = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert ray == [rayjob()["spec"]["rayClusterSpec"]["rayVersion"]]
    texts = [(DEPLOY / name).read_text() for name in ("ray-cluster.yaml", "Dockerfile")]
    images = [image for text in texts for image in re.findall(r"rayproject/ray\S*", text)]
    assert images
    assert all(re.fullmatch(rf"rayproject/ray:{re.escape(ray[0])}-py\d+-[cg]pu", image) for image in images), images
    for text in texts:
        (line,) = re.findall(r"pip install .+", text)
        words = shlex.split(line)
        constraints, package = words[words.index("-c") + 1], Path(words[-1].removesuffix("[openvino]"))
        assert Path(constraints) == package / "constraints.txt"


# --- Slurm ---------------------------------------------------------------------------------------------------------


def test_the_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    if shellcheck := shutil.which("shellcheck"):
        result = subprocess.run([shellcheck, SLURM], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout


def test_its_arguments_are_those_of_train() -> None:
    words = commented_command("slurm.sh", "deploy/slurm.sh ")
    command = parse_args(["train", *words, "--resume", "--address", "10.0.0.1:6379"])
    assert isinstance(command, TrainCommand)
    assert command.config.actors.count == 100


STAND_INS = {
    "srun": """
echo "srun $* key=${WANDB_API_KEY:-none} mode=$RAY_AUTH_MODE token=${#RAY_AUTH_TOKEN}" >> log
exec sleep 60""",
    "ray": 'echo "ray $*" >> log',
    "hostname": "echo 10.0.0.1 fd00::1",
    "scontrol": 'if [[ $1 == show ]]; then printf "one\\ntwo\\nthree\\n"; else echo "scontrol $*" >> log; fi',
    # The driver: leaves when it is asked to, or at once with the code in the file `end`.
    "python": """
trap 'sleep 0.3; exit 130' USR1
echo "python $* key=${WANDB_API_KEY:-none}" >> log
if [[ -f end ]]; then exit "$(cat end)"; fi
touch ready
while true; do sleep 0.1; done""",
}


def slurm_job(folder: Path) -> subprocess.Popen[bytes]:
    """The script on node `one` of three, with stand-ins for what it calls."""
    (folder / "bin").mkdir()
    for name, text in STAND_INS.items():
        file = folder / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_NODELIST": "nodes",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_JOB_ID": "7",
        "WANDB_API_KEY": "key-of-mine",
    }
    return subprocess.Popen(["bash", str(SLURM), "cartpole", "--seed", "3"], env=env)


def slurm_log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_the_slurm_job_starts_a_cluster_trains_and_is_requeued_when_its_time_is_up(tmp_path: Path) -> None:
    job = slurm_job(tmp_path)
    try:

        def ready() -> bool:
            assert job.poll() is None
            return (tmp_path / "ready").exists()

        until(ready)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(PATIENCE) == 130
    finally:
        job.kill()
    log = slurm_log(tmp_path)
    starts = [line for line in log if line.startswith("srun")]
    (head,) = [line for line in starts if "--head" in line]
    (others,) = [line for line in starts if line not in head]
    assert "--nodelist=one" in head
    assert "--nodes=2 --ntasks=2 --exclude=one ray start --address=10.0.0.1:6379 --num-cpus=16" in others
    for line in starts:
        assert line.endswith("key=none mode=token token=64")
    (driver,) = [line for line in log if line.startswith("python")]
    assert driver == ("python launch.py train cartpole --seed 3 --resume --address 10.0.0.1:6379 key=key-of-mine")
    assert log[-1] == "scontrol requeue 7"


@pytest.mark.parametrize("code", [0, 3])
def test_the_slurm_job_ends_as_the_driver_does(code: int, tmp_path: Path) -> None:
    (tmp_path / "end").write_text(str(code))
    assert slurm_job(tmp_path).wait(PATIENCE) == code
    assert not [line for line in slurm_log(tmp_path) if "requeue" in line]


# --- The page ------------------------------------------------------------------------------------------------------


def test_the_page_names_every_file_and_no_other() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    named = set(re.findall(r"\]\(\.\./deploy/([^)]+)\)", text))
    assert named == {path.name for path in DEPLOY.iterdir() if path.suffix != ".dockerignore"}
    assert (ROOT / "SECURITY.md").is_file()
