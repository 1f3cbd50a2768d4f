#!/bin/sh
# Runs a command, and once more where it fails: for what a test's surroundings do wrong at times.
"$@" && exit
echo "FAILED ONCE, once more: $*"
exec "$@"
