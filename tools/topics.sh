#!/usr/bin/env bash
# Makes the table of docs/topics.md: topics of Debian packages with MiniLM, five methods, two heads, three seeds. 80 minutes on one core; runs that are in topics.jsonl are not made again.
#   tools/topics.sh [EPOCHS [SEEDS [ONLY]]]
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
need_packages "${packages[@]}"
configure build-bench -Dtests=false -Dexamples=false -Dbench=true
ninja -C build-bench bench/bench_topics >&2
model=$(fetch_minilm)
data=$(fetch_topics)
build-bench/bench/bench_topics "$model" "$data" topics.jsonl "$@"
