#!/usr/bin/env bash
# compile_cuda.sh SOURCE OBJECT REPORT DEPFILE NVCC FLAGS…: compiles one file and keeps what ptxas says of registers, shared memory and spills in REPORT.
set -uo pipefail
source=$1 object=$2 report=$3 depfile=$4
shift 4
if ! "$@" -Xptxas -v -MD -MF "$depfile" -c "$source" -o "$object" >"$report" 2>&1; then
  cat "$report" >&2
  exit 1
fi
