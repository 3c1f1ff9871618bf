#!/usr/bin/env bash
# Scores a folder in shards, one task of a job array per shard, and merges them. See
# docs/deploy-slurm.md. On a login node,
#
#     score-array.sh submit model.onnx images results 8
#
# submits both jobs. To score some shards again: sbatch --array=3,5 score-array.sh score …
#
#SBATCH --job-name=rgby
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ $# != 5 ]; then
    echo "usage: $0 submit|score|merge MODEL IMAGES RESULTS SHARDS" >&2
    exit 2
fi
role=$1 model=$2 images=$3 results=$4 shards=$5
rgby=${RGBY:-rgby}

submit() {
    local scoring
    mkdir -p "$results"
    # Some versions of sbatch append a semicolon and the name of the cluster.
    scoring=$(sbatch --parsable --array="0-$((shards - 1))" "$0" score "${@:2}")
    # afterok waits for requeued tasks too. With --failed-ok, unreadable samples do not fail a task.
    sbatch --dependency="afterok:${scoring%%;*}" --kill-on-invalid-dep=yes \
        --cpus-per-task=1 "$0" merge "${@:2}"
}

# Scores this task's shard. Slurm signals this script, not its child (B:), two minutes before the
# time limit. The finished work is kept, and the task is requeued.
score() {
    local stopped='' child code=0
    trap 'stopped=1; kill -TERM "$child" 2>/dev/null || true' TERM
    "$rgby" score --model "$model" --images "$images" --shards "$shards" \
        --out "$results/predictions-$SLURM_ARRAY_TASK_ID.csv" \
        --scores "$results/scores-$SLURM_ARRAY_TASK_ID.csv" \
        --resume --failed-ok &
    child=$!
    wait "$child" || code=$?
    if [ -n "$stopped" ]; then
        # The trap interrupted the first wait; the child still runs.
        code=0
        wait "$child" || code=$?
    fi
    # Do not requeue if the child has just finished (0) or failed for good (2).
    if [ -n "$stopped" ] && [ "$code" != 0 ] && [ "$code" != 2 ]; then
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    fi
    exit "$code"
}

merge() {
    local kind
    for kind in predictions scores; do
        "$rgby" merge "$results/$kind"-*.csv --out "$results/merged-$kind.csv" --failed-ok
    done
}

case $role in
submit) submit "$@" ;;
score) score ;;
merge) merge ;;
*)
    echo "$0: unknown role $role: use submit, score or merge" >&2
    exit 2
    ;;
esac
