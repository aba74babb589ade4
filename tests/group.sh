#!/bin/sh
# group.sh OUTPUT FILE…: one translation unit of several test files. Their headers are most of what the compiler reads: they come first and once; each file then stands in a
# namespace of its own, so that names may meet.
output=$1
shift
{
  grep -h '^#include <' "$@" | sort -u
  grep -h '^#include "' "$@" | sort -u
  for file in "$@"; do
    name=$(basename "$file" .cpp)
    printf 'namespace unit_%s {\n#include "%s"\n}\n' "$name" "$(realpath "$file")"
  done
} >"$output"
