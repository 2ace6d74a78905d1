#!/bin/bash
# Train on several nodes of a Slurm cluster, and go on by itself after failures and in the next job.
#
#   sbatch slurm.sh SOLVER [OPTIONS of paratrain train]
#
# Change the lines of #SBATCH to what your cluster has; options given to sbatch itself come before them.
# Solver, data and snapshots have to lie where every node sees them, and so has the Python environment: activate it before
# sbatch, or here.
#
# A run longer than the time limit: submit the same line several times with `sbatch --dependency=singleton`. Two minutes before
# the end of a job Slurm sends SIGTERM, on which a snapshot is written, and the next job goes on from it.

#SBATCH --job-name=paratrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append

set -eu
[ $# -gt 0 ] || { echo "usage: sbatch slurm.sh SOLVER [options of paratrain train]" >&2; exit 2; }

# One thread for each core of a rank.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

# mpirun learns from Slurm which nodes there are and starts its helpers through srun. exec: Slurm's signals go to paratrain itself.
exec paratrain launch -n "$SLURM_NTASKS" --restarts 3 train "$@" --resume auto --keep 3
