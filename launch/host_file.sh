#!/bin/sh
# Train on the machines that a host file names, started through ssh; look first whether each of them is ready.
#
#   host_file.sh HOSTFILE SOLVER [OPTIONS of paratrain train]
#
# HOSTFILE  lines of "node1:4" or "node1 slots=4", as hosts.txt
# RESTARTS  restarts in a row without a new snapshot (default: 3)
# SSH       the command that opens a shell on a machine (default: ssh, without asking for passwords)
#
# Every machine needs: ssh from this one without a password, the Python environment under the same path, and the folder of
# solver, data and snapshots under the same path (a shared file system).
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $(basename "$0") HOSTFILE SOLVER [options of paratrain train]" >&2
    exit 2
fi
HOSTFILE=$1
shift
SSH=${SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}

PARATRAIN=$(command -v paratrain) || {
    echo "$(basename "$0"): no paratrain on PATH; activate the environment that it is installed in" >&2
    exit 1
}
VERSION=$("$PARATRAIN" --version)

# The name alone: without the number of ranks, and an IPv6 address without its brackets.
for HOST in $(sed -e 's/#.*//' -e 's/^[[:space:]]*//' -e 't name' -e ':name' -e 's/^\[\([^]]*\)\].*/\1/' -e 't' \
    -e 's/[[:space:]:].*//' "$HOSTFILE"); do
    # $SSH is a command with its options, and is split into words on purpose.
    FOUND=$($SSH "$HOST" "cd '$PWD' && '$PARATRAIN' --version" </dev/null) || {
        echo "$(basename "$0"): $HOST: cannot be reached through '$SSH', or lacks $PWD or $PARATRAIN" >&2
        exit 1
    }
    if [ "$FOUND" != "$VERSION" ]; then
        echo "$(basename "$0"): $HOST has $FOUND, this machine $VERSION; install the same on both" >&2
        exit 1
    fi
    echo "$HOST is ready: $FOUND"
done

exec "$PARATRAIN" launch --hostfile "$HOSTFILE" --restarts "${RESTARTS:-3}" train "$@"
