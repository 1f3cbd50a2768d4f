#!/usr/bin/env bash
# Runs a fuzz target and, when it fails, prints in base64 the inputs it failed on: libFuzzer does that for 256
# bytes at most, and a log may be all that is left of the machine. Usage: run.sh ARTIFACTS TARGET ARGS...,
# where the folder ARTIFACTS receives those inputs and is emptied first.
set -euo pipefail
artifacts=$1
shift
rm -rf "$artifacts"
mkdir -p "$artifacts"
status=0
"$@" "-artifact_prefix=$artifacts/" || status=$?
for input in "$artifacts"/*; do
  [ -e "$input" ] || continue
  echo "fuzz: the input $(basename "$input") in base64 (undo with base64 -d):"
  base64 "$input"
done
exit "$status"
