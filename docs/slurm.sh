#!/bin/bash
# A SLURM job that trains or evaluates on several machines, and requeues itself when its time is up:
#
#     sbatch docs/slurm.sh train_cls_image.py --voc_root /data/VOC2012
#
# Submit it from the repository, with the environment active. All machines must see the repository,
# the data and the folder --experiments under the same paths. See docs/running.md.
#SBATCH --job-name=msa
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120

script=$1
shift
# A training that has saved nothing yet starts at its beginning, so --resume is always given.
# Evaluators continue by themselves.
case $script in train_*) set -- "$@" --resume ;; esac

# SLURM signals this shell two minutes before the end; the step passes it on to all its processes.
stopping=
trap 'stopping=yes; kill -TERM "$step"' TERM

host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun python -m torch.distributed.run \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" \
  --rdzv_endpoint "$host:${MSA_PORT:-29500}" \
  "$script" "$@" &
step=$!
wait "$step"
status=$?
if [ -n "$stopping" ]; then
  wait "$step" # the first wait was ended by the signal
  status=$?
  [ "$status" -eq 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
