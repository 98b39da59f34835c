#!/usr/bin/env bash
# From open clips and an open base to a scored, shippable editor.
#
#   scripts/speedrun.sh tiny                       two CPU cores, minutes
#   scripts/speedrun.sh 1.3b --gpus 8              one machine
#   scripts/speedrun.sh 5b --gpus 64 --slurm       a cluster
#
#   --out DIR           folder of the run (runs/speedrun-SIZE); all commands are carried out in it
#   --gpus N            in all; what the size's settings say when left out
#   --set.NAME VALUE    a setting in place of the one in configs/speedrun/SIZE/settings.yaml
#   --print, --plan     print all commands; say which stages would be done (anew), and why
#   --only STAGE        one stage
#   --yes               do anew what changed without asking
#   --max-gpu-hours X   stop before that much is spent
#   --push OWNER/NAME   publish the finished editor on the model hub
#   --slurm             submit the stages as jobs that wait for one another
#
# SIZE is a folder of configs/speedrun, or your own folder with the same files. Killed anywhere and started again,
# the script goes on where it was: a stage is skipped while its commands and configurations are what they were.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

usage() {
  sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
}
fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

size='' out='' mode=run push='' limit=''
options=() given=()
while (($#)); do
  case $1 in
  -h | --help) usage && exit ;;
  --print | --plan | --slurm) mode=${1#--} ;;
  --yes) options+=(--yes) ;;
  --out | --gpus | --only | --push | --max-gpu-hours | --set.*)
    (($# > 1)) || fail "$1: needs a value"
    case $1 in
    --out) out=$2 ;;
    --push) push=$2 ;;
    --only) options+=(--only "$2") ;;
    --max-gpu-hours) limit=$2 options+=(--max_gpu_hours "$2") ;;
    *) given+=("$1" "$2") ;;
    esac
    shift
    ;;
  -*) fail "$1: no such option (see scripts/speedrun.sh --help)" ;;
  *)
    [[ -z $size ]] || fail "$1: one size at a time"
    size=$1
    ;;
  esac
  shift
done
[[ -n $size ]] || fail "no size; for example: scripts/speedrun.sh tiny"
[[ -n $out ]] || out=$root/runs/speedrun-$(basename "$size")
[[ $out == /* ]] || out=$PWD/$out

# The choices of this size, as variables: base, clips, graded, gpus, ... and configs, the folder of its files.
settings=$("$python" -m editverse.speedrun settings "$size" "${given[@]}")
eval "$settings"

# Each stage begins with `stage`; each command of it is printed by `run`, and carried out below.
stage() {
  printf '\n# stage'
  printf ' %q' "$@"
  printf '\n'
}
run() {
  printf '%q ' "$@"
  printf '\n'
}
train() { # a process per GPU
  if ((gpus > 1)); then
    run python -m torch.distributed.run --standalone --nproc-per-node "$gpus" -m -- model "$@"
  else
    run python -m model "$@"
  fi
}

recipe() {
  printf 'cd %q\n' "$out"

  # BASE. The weights that training starts from. Published ones are fetched here, so that nothing is fetched later.
  stage base
  run python -m model info --checkpoint "$base"

  # CLIPS. Videos with their licences.
  stage clips --makes clips
  run mkdir -p clips data
  run python -m curation clips fetch --dir "$root/data/clips"
  run python -m curation models fetch --dir "$root/data/models"
  run ln -sfn "$root/data/models" data/models

  # CURATION. Edit pairs out of clips and of rendered scenes, task by task; what is refused is kept with its reason.
  stage curation --needs clips --makes data/curated --least "$least_curated"
  run python -m curation all --runs "$configs/curation.yaml" --clips "$root/$clips" --out data/curated --workspace workspace

  # IMPORTS. Pairs of others. A data set that forbids commercial use stays out of a run with `commercial: true`.
  stage imports --makes data/imported
  run python -m curation import-all "$configs/imports.yaml" --commercial "$commercial" --out data/imported

  # GATES. Every pair is measured; thresholds come from labelled pairs, or from gates.yaml; what passes is clean.
  stage gates --needs curation,imports --makes gates,data/clean --least "$least_clean"
  for name in "${graded[@]}"; do
    run python -m curation grade "data/$name" --config "$configs/grade.yaml" --workspace workspace
  done
  rules=$configs/gates.yaml
  if [[ -n $labels ]]; then
    run python -m curation calibrate "data/$labelled" --labels "$labels" --out gates
    rules=gates/rules.yaml
  fi
  for name in "${graded[@]}"; do
    run python -m curation filter "data/$name" --rules "$rules" --out "data/clean/$name"
  done

  # LATENTS. Videos and texts through the base's encoders once, not once per step.
  stage latents --needs base,gates --makes latents --gpus "$gpus"
  run python -m model precompute --config "$configs/stage1.yaml"

  # STAGE 1. On all pairs, bad ones among them.
  stage stage1 --needs latents --makes stage1 --gpus "$gpus"
  train fit --config "$configs/stage1.yaml" --run stage1 "${stage1_options[@]}"

  # STAGE 2. On the clean ones, from where stage 1 ended.
  stage stage2 --needs stage1 --makes stage2 --gpus "$gpus"
  train fit --config "$configs/stage2.yaml" --run stage2 "${stage2_options[@]}"

  # DISTILL. A student that edits in a few steps without guidance.
  stage distill --needs stage2 --makes distill --gpus "$gpus"
  train distill --config "$configs/distill.yaml" --run distill "${distill_options[@]}"

  # BENCH. Held-out items, edited by the base and by what each stage left.
  stage bench --needs distill --makes bench --gpus "$gpus"
  for suite in "${benches[@]}"; do
    run python -m benchmark run --config "$configs/bench.yaml" --data "data/$suite" --out "bench/$(basename "$suite")"
  done

  # REPORT. Where the data came from, the model to pass on with its card, and a page of it all.
  stage report --needs bench --makes ledger.csv,export,report.html,report.json
  run python -m shards ledger "${graded[@]/#/data/}" --out ledger.csv
  run python -m model export --checkpoint distill --out export
  [[ -z $push ]] || run python -m model push --checkpoint distill --repo "$push"
}

case $mode in
print) recipe ;;
plan) recipe | "$python" -m editverse.speedrun plan "$out" ;;
slurm) recipe | "$python" -m editverse.speedrun submit "$out" "${options[@]}" ;;
run)
  mkdir -p "$out"
  text=$(recipe)
  exec "$python" -m editverse.speedrun run "$out" "${options[@]}" <<<"$text"
  ;;
esac
