#!/bin/bash
#SBATCH --job-name=muzero_ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# A Ray cluster for one Slurm job, and a training run on it. All arguments are those of `launch.py train`:
#
#   sbatch --nodes=8 deploy/slurm.sh atari --run.name atari-0 --actors 100 --actors.num-cpus 1
#
# Submit it from the checkout's folder, on a file system that all nodes see, with the virtual environment in .venv.
# Three minutes before the time limit the run writes a checkpoint, and the job is put back into the queue; whatever the
# reason for a new start, it goes on where it was. `--minutes` counts training only: leave the job time for its start-up
# and the final evaluation. A GPU for the learner: --gpus-per-node=1 and --learner.gpus 1.
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"
if [[ -f .venv/bin/activate ]]; then
    # shellcheck source=/dev/null
    source .venv/bin/activate
fi

# Known to this job alone, and on no command line: srun hands the environment on.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# W&B's key for the driver only; what srun starts does not get it.
wandb_key=${WANDB_API_KEY:-}
unset WANDB_API_KEY

port=6379
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} # where this script runs
ip=$(hostname -I | cut -d' ' -f1)
cpus=$SLURM_CPUS_PER_TASK
export SRUN_CPUS_PER_TASK=$cpus # sbatch does not hand it on to srun

# shellcheck disable=SC2046
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    ray start --head --node-ip-address="$ip" --port="$port" --num-cpus="$cpus" --include-dashboard=false \
    --disable-usage-stats --block &
for _ in {1..60}; do
    if ray health-check --address "$ip:$port" 2>/dev/null; then break; fi
    sleep 2
done

others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" \
        ray start --address="$ip:$port" --num-cpus="$cpus" --block &
fi

if [[ -n $wandb_key ]]; then export WANDB_API_KEY=$wandb_key; fi
python launch.py train "$@" --resume --address "$ip:$port" &
driver=$!

stopped=0
trap 'stopped=1; kill -USR1 "$driver" 2>/dev/null || true' USR1 TERM
code=0
wait "$driver" || code=$?
if ((stopped)); then # that `wait` ended with the signal; this one ends with the driver
    code=0
    wait "$driver" || code=$?
fi
# 130: it was stopped, and is to go on.
if ((stopped && code == 130)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
