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

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

size='' out='' mode=run push='' limit=''
options=() given=()
calibrate_on=() stage1_options=() stage2_options=() distill_options=() slurm_options=() export_options=()
while (($#)); do
  case $1 in
  -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
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
[[ ! -d $size ]] || size=$(cd "$size" && pwd)

cd "$root"

# The choices of this size, as variables: base, clips, graded, gpus, ... and configs, the folder of its files.
settings=$("$python" -m editverse.speedrun settings "$size" "${given[@]}")
eval "$settings"
one_gpu=$((gpus > 0))

# Each stage begins with `stage`; each command of it is printed by `run`, and carried out below.
stage() { printf '\n# stage' && printf ' %q' "$@" && printf '\n'; }
run() { printf '%q ' "$@" && printf '\n'; }
joined() { local IFS=, && printf %s "$*"; }
train() { # a process per GPU
  if ((gpus > 1)); then
    run python -m torch.distributed.run --standalone --nproc-per-node "$gpus" -m -- model "$@"
  else
    run python -m model "$@"
  fi
}

recipe() {
  printf 'cd %q\n' "$out"

  # BASE. The weights that training starts from, shipped or published ones.
  stage base
  run python -m editverse.speedrun base "$base"

  # CLIPS. Videos with their licences: the two samples, a folder, a list of URLs, or a service that is searched with
  # your own key. What the small offline annotators need comes along.
  stage clips --makes clips,public
  run mkdir -p data
  run python -m curation models fetch --dir "$root/data/models"
  run ln -sfn "$root/data/models" data/models
  case $clips in
  samples)
    run python -m curation clips fetch --dir "$root/data/clips"
    run ln -sfn "$root/data/clips" clips
    ;;
  *:* | *.txt | *.csv | *.jsonl)
    [[ $clips == *:* ]] || clips=$(realpath -m "$clips")
    run python -m curation clips download "$clips" --out clips --count "${clips_count:-0}" \
      --license "${clips_license:-}" --commercial "$commercial"
    ;;
  *) run ln -sfn "$(realpath -m "$clips")" clips ;;
  esac
  # A stand-in for a public data set, in another trainer's layout, where none is named: rendered, 30 % of it made bad.
  if [[ -n ${public:-} ]]; then
    run python -m curation all --runs "$configs/$public" --out public/scenes --workspace workspace
    run python -m curation plant public/scenes/removal --out public/pairs --share 0.3 \
      --tasks "[${planted:-}]"
    run python -m curation export diffsynth public/pairs public/removal --tasks '["object_removal"]'
  fi

  # CURATION. Edit pairs out of clips and rendered scenes, task by task; what is refused is kept with its reason.
  stage curation --needs clips --makes data/curated --least "$least_curated"
  run python -m curation all --runs "$configs/curation.yaml" --clips clips --out data/curated --workspace workspace

  # IMPORTS. Pairs of others. Data sets that forbid commercial use are left out where `commercial` is true.
  stage imports --needs clips --makes data/imported
  run python -m curation import-all "$configs/imports.yaml" --commercial "$commercial" --out data/imported

  # GATES. Every pair is measured, and what passes the rules is clean. The rules are gates.yaml, or come from what
  # planted defects do to the measures (`calibrate_on`).
  stage gates --needs curation,imports --makes gates,data/calibration,data/labels.jsonl,data/clean \
    --counts data/clean --least "$least_clean"
  rules=$configs/gates.yaml
  if ((${#calibrate_on[@]})); then
    rules=gates/rules.yaml
    run python -m curation plant "$(joined "${calibrate_on[@]/#/data/}")" --out data/calibration --share 0.5 \
      --labels data/labels.jsonl --tasks "[${planted:-}]"
    run python -m curation grade data/calibration --config "$configs/grade.yaml" --workspace workspace
    run python -m curation calibrate data/calibration --labels data/labels.jsonl --out gates
  fi
  for name in "${graded[@]}"; do
    run python -m curation grade "data/$name" --config "$configs/grade.yaml" --workspace workspace
    run python -m curation filter "data/$name" --rules "$rules" --out "data/clean/$name"
  done

  # LATENTS. Videos and texts through the base's encoders: once, and not once per step.
  stage latents --needs base,gates --makes latents --gpus "$one_gpu"
  for pairs in all clean; do
    run python -m model precompute --config "$configs/stage1.yaml" --data.mixture "$configs/mixture_$pairs.yaml" \
      --train.init_from "$base"
  done

  # STAGE 1. On all pairs, the bad ones among them.
  stage stage1 --needs latents --makes stage1 --gpus "$gpus"
  train fit --config "$configs/stage1.yaml" --run stage1 --train.init_from "$base" "${stage1_options[@]}"

  # STAGE 2. On the clean pairs, from where stage 1 ended.
  stage stage2 --needs stage1 --makes stage2 --gpus "$gpus"
  train fit --config "$configs/stage2.yaml" --run stage2 "${stage2_options[@]}"

  # DISTILL. A student of stage 2 that edits in a few steps without guidance.
  stage distill --needs stage2 --makes distill --gpus "$gpus"
  train distill --config "$configs/distill.yaml" --run distill "${distill_options[@]}"

  # BENCH. Held-out items, edited by the base and by what each stage left; and benchmarks whose videos you have.
  stage bench --needs distill --makes bench --gpus "$one_gpu"
  for name in "${benches[@]}"; do
    run python -m benchmark run --config "$configs/bench.yaml" --system.base "checkpoint:$base" \
      --data "data/$name" --out "bench/$name"
    for row in stage1 stage2 distill; do # paired differences to the base
      run python -m benchmark compare "bench/$name" "bench/$name" --row base --second_row "$row" --out "bench/$name/$row.json"
    done
  done

  # REPORT. Where the data came from, the model to pass on with its card, and a page of it all. Publishing comes last:
  # when it fails, all else is there.
  stage report --needs bench --makes ledger.csv,card.md,export,report.html,report.json
  run python -m editverse.speedrun ledger .
  run python -m editverse.speedrun card .
  run python -m model export --checkpoint distill --out export "${export_options[@]}"
  push_to=(--checkpoint export --run distill --repo "${push:-local/speedrun-$(basename "$size")}" --about card.md)
  run python -m model push "${push_to[@]}" --dry_run
  run python -m editverse.speedrun report .
  [[ -z $push ]] || run python -m model push "${push_to[@]}"
}

case $mode in
print) recipe && exit ;;
plan) recipe | "$python" -m editverse.speedrun plan "$out" && exit ;;
esac
# The bill first, which ends the script when it is beyond the limit; then whatever is not done.
mkdir -p "$out"
bill=(--size "$size" "${given[@]}" --gpus "$gpus" --out "$out/bill.json" ${limit:+--max_gpu_hours "$limit"})
"$python" -m editverse.speedrun bill "${bill[@]}"
text=$(recipe)
[[ $mode == run ]] || exec "$python" -m editverse.speedrun submit "$out" "${options[@]}" "${slurm_options[@]}" <<<"$text"
exec "$python" -m editverse.speedrun run "$out" "${options[@]}" <<<"$text"
