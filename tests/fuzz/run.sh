#!/usr/bin/env bash
# Runs a fuzz target: first on its valid seeds, which it must accept (fuzz.h), then freely. When it fails, the
# inputs it failed on are printed in base64: libFuzzer does that for 256 bytes at most, and a log may be all
# that is left of the machine. Usage: run.sh ARTIFACTS SEEDS TARGET ARGS..., where the folder ARTIFACTS gets
# those inputs and is emptied first.
set -euo pipefail
artifacts=$1
seeds=$2
target=$3
shift 3
rm -rf "$artifacts"
mkdir -p "$artifacts"
# Without any valid seed the name below is of no file, which fails.
FATHOM_FUZZ_VALID=1 "$target" "$seeds"/valid-* || { echo "fuzz: a valid seed was refused"; exit 1; }
status=0
"$target" "-artifact_prefix=$artifacts/" "$@" "$seeds" || status=$?
for input in "$artifacts"/*; do
  [ -e "$input" ] || continue
  echo "fuzz: the input $(basename "$input") in base64 (undo with base64 -d):"
  base64 "$input"
done
exit "$status"
