#!/usr/bin/env bash
# From a bare Debian to a fine-tuned language model: builds Cambium, fine-tunes SmolLM2-135M on The Devil's Dictionary with LoRA on the CPU, and shows what it learned.
# Downloads and build are kept: a second run starts training at once.   DEMO_STEPS=N trains another number of steps (default 90).
set -euo pipefail
cd "$(dirname "$0")"
. tools/setup.sh

need_packages "${packages[@]}"
say "building"
export CXX="${CXX:-ccache g++}" CC="${CC:-ccache gcc}"
configure build -Ddefault_library=static -Dtests=false -Dexamples=false -Dbench=false
ninja -C build --quiet cli/cambium
cambium=build/cli/cambium
model=$(fetch_model)
data=$(fetch_dictionary)
steps=${DEMO_STEPS:-90}
run=runs/demo-$(date +%Y%m%d-%H%M%S)

say "three definitions before"
words=(LOVE POLITICIAN COMPUTER)
write() { # word, options…: one greedy completion on one line
  local word=$1
  shift
  "$cambium" generate --model "$model" --prompt "Define: $word" --prompt-separator $'\n' --max-new-tokens 48 --quiet "$@" | tr '\n' ' ' | cut -c1-240
}
before=()
for word in "${words[@]}"; do before+=("$(write "$word")"); done

say "LoRA on q_proj and v_proj, $steps steps of 4 rows"
"$cambium" train --model "$model" --data "$data/devil-train.jsonl" --eval-data "$data/devil-heldout.jsonl" --target-modules q_proj,v_proj --r 8 --lora-alpha 16 \
  --learning-rate 1e-3 --batch-size 4 --max-length 128 --steps "$steps" --out "$run"

printf '\nheld-out definitions      before -> after\n'
python3 - "$run/metrics.jsonl" <<'PY' 2>/dev/null || grep perplexity "$run/metrics.jsonl"
import json, sys
rows = [r for r in map(json.loads, open(sys.argv[1])) if "perplexity" in r]
print(f"perplexity           {rows[0]['perplexity']:11.2f} -> {rows[-1]['perplexity']:.2f}")
PY
for i in "${!words[@]}"; do
  printf '\nDefine: %s\n  before  %s\n  after   %s\n' "${words[i]}" "${before[i]}" "$(write "${words[i]}" --adapter "$run/adapter")"
done

cat <<TEXT

Go on:
  $cambium generate --model $model --adapter $run/adapter --prompt "Define: MONEY" --prompt-separator \$'\\n'
  $cambium train --model $model --data $data/devil-train.jsonl --eval-data $data/devil-heldout.jsonl --target-modules q_proj,v_proj \\
    --r 8 --lora-alpha 16 --learning-rate 1e-3 --batch-size 4 --max-length 128 --epochs 1 --out runs/whole-epoch
  $cambium merge --model $model --adapter $run/adapter --out $run/merged
  ./test.sh
The adapter in $run/adapter loads in Hugging Face PEFT too.
TEXT
