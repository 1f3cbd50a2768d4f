#!/usr/bin/env bash
# Comparisons in the lab: a Debian-unstable root that ../shared/tools/lab makes beside this checkout, for the
# newer compiler, driver and reference programs that Debian 12 does not have. ctest runs one check each:
#   lab.sh compile PROGRAM   Fathom builds there and continues a text as PROGRAM, this machine's build, does
#   lab.sh goldens           tests/golden/ is what Hugging Face transformers computes there today,
#   lab.sh tiny_goldens      and so is tests/golden/tiny/
#   lab.sh blocks            tests/golden/blocks.safetensors is what ggml's Python package dequantises
#   lab.sh chips             every kernel compiles for real chips of AMD, Intel and NVIDIA, pretended
#   lab.sh gguf PROGRAM      GGUF files that PROGRAM writes mean the same to llama.cpp and to PROGRAM
#   lab.sh serve PROGRAM     its server answers as llama.cpp's does, but for what is explained
#   lab.sh tiers             every tier of kernels is right there, cooperative matrices too
#   lab.sh lock              prints the versions for tests/lab.lock
# A check that fails in the lab whose versions are in lab.lock fails. Where there is no lab, or where it has
# moved on to other versions and the check fails, the check is skipped (77) and says so loudly.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=../shared/tools/lab

skip() {
  echo "SKIPPED: $*" >&2
  exit 77
}

in_lab() { "$lab" run env -u VK_ICD_FILENAMES VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json "$@"; }

# The versions in the lab of the packages that lab.lock names, in its own form.
versions() {
  # shellcheck disable=SC2046 # one word for each package
  in_lab dpkg-query -W -f='${Package}=${Version}\n' $(sed -n 's/^\([^#=]*\)=.*/\1/p' tests/lab.lock) | sort
}

# Continues a text without any choice left to chance, which every driver must do alike.
continue_text() {
  "$@" run -p 'Once upon a time, there was a little girl named Lily.' --greedy --ignore-eos -n 60 -q
}

compile() {
  local here there
  here=$(continue_text "$1") || return 1
  there=$(continue_text in_lab ./fathom) || return 1
  diff <(echo "$here") <(echo "$there") || {
    echo "other text in the lab (right) than here (left)" >&2
    return 1
  }
  echo "the same text here and in the lab: $there"
}

goldens() { in_lab python3 tests/golden/make_goldens.py --check; }
chips() { python3 tests/lab/offline.py; }
gguf() { python3 tests/lab/gguf.py "$1"; }
serve() { python3 tests/lab/serve.py "$1"; }
tiers() { python3 tests/lab/tiers.py; }
tiny_goldens() { in_lab python3 tests/golden/make_tiny_goldens.py --check; }
blocks() { in_lab python3 tests/golden/make_blocks.py --check; }

[ -x "$lab" ] || skip "there is no lab beside this checkout ($lab)"
# One check sets it up and mounts this checkout; others that start at the same time wait for it.
export LC_ALL=C
exec 9<tests/lab.lock
flock 9
{ "$lab" setup && in_lab true; } >&2 || skip "the lab cannot be set up"
flock -u 9
if [ "$1" = lock ]; then
  versions
  exit
fi
moved=$(diff <(grep -v '^#' tests/lab.lock) <(versions) || true)
status=0
"$@" || status=$?
[ -z "$moved" ] || printf 'the lab moved from tests/lab.lock (left) to (right):\n%s\n' "$moved" >&2
[ "$status" = 0 ] || [ -z "$moved" ] || skip "lab moved, and this check fails with its versions"
exit "$status"
