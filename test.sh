#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests. Reference data that is not on this machine is named and skipped;
# CAMBIUM_REQUIRE_DATA=1 makes that a failure. Last line: "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")"
. tools/setup.sh

need_packages "${packages[@]}"
export CXX="${CXX:-ccache g++}" CC="${CC:-ccache gcc}"
build=${CAMBIUM_BUILD:-build-tests}
say "building into $build"
configure "$build" "$@"
ninja -C "$build" --quiet
export CAMBIUM_MODELS=${CAMBIUM_MODELS:-$cache/models}
if [ "${CAMBIUM_REQUIRE_DATA:-0}" = 1 ]; then fetch_model >/dev/null; fetch_minilm >/dev/null; fetch_sentencepiece >/dev/null; fi
say "testing"
status=0
meson test -C "$build" --no-rebuild --print-errorlogs ${CAMBIUM_TEST_OPTIONS:-} >"$build/tests.log" 2>&1 || status=$?
grep -hE 'SKIPPED|skipped:' "$build"/meson-logs/testlog.txt 2>/dev/null | sort -u | head -n 20 >&2 || true
[ $status -eq 0 ] || tail -n 150 "$build/tests.log" >&2
passed=$(sed -n 's/^Ok: *\([0-9]*\).*/\1/p' "$build/tests.log")
failed=$(awk '/^(Fail|Timeout|Unexpected Pass):/ { n += $NF } END { print n + 0 }' "$build/tests.log")
if [ -z "$passed" ]; then passed=0 failed=1; fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
