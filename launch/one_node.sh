#!/bin/sh
# Train on this machine, on one rank for each GPU, or on as many ranks as you ask for.
#
#   one_node.sh SOLVER [OPTIONS]           RANKS=2 one_node.sh SOLVER [OPTIONS]
#
# RANKS   the count of ranks (default: the GPUs that nvidia-smi lists; without any, one)
# MPIRUN  the launcher (default: the one beside `paratrain`, else the one on PATH)
#
# The ranks share the cores out: each gets cores / RANKS threads on its own, unless OMP_NUM_THREADS or --threads says otherwise.
set -eu

if [ $# -eq 0 ]; then
    echo "usage: [RANKS=N] $(basename "$0") SOLVER [options of paratrain train]" >&2
    exit 2
fi

PARATRAIN=$(command -v paratrain) || {
    echo "$(basename "$0"): no paratrain on PATH; activate the environment that it is installed in" >&2
    exit 1
}

if [ -z "${RANKS:-}" ]; then
    RANKS=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ') || RANKS=1
fi

if [ -z "${MPIRUN:-}" ]; then
    MPIRUN=$(dirname "$PARATRAIN")/mpirun
    [ -x "$MPIRUN" ] || MPIRUN=$(command -v mpirun) || {
        echo "$(basename "$0"): no mpirun; install one with: pip install 'paratrain[mpi]'" >&2
        exit 1
    }
fi

# Open MPI refuses to start as root or with more ranks than cores, and binds each of one or two ranks to a single core.
case $("$MPIRUN" --version 2>&1) in
*"Open MPI"*)
    export OMPI_ALLOW_RUN_AS_ROOT="${OMPI_ALLOW_RUN_AS_ROOT:-1}"
    export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM:-1}"
    exec "$MPIRUN" --oversubscribe --bind-to none -n "$RANKS" "$PARATRAIN" train "$@"
    ;;
*)
    exec "$MPIRUN" -n "$RANKS" "$PARATRAIN" train "$@"
    ;;
esac
