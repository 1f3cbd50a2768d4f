#!/usr/bin/env bash
# Everything that wants a real GPU, in one call on a machine that has nothing but its driver.
#   real_gpu.sh pack FILE.tar.xz   here, after ./fathom test: programs, their libraries, the Vulkan loader
#   ./real_gpu.sh run [OUT]        there, in the unpacked folder: within ten minutes, into OUT (./results)
# Run: devices; the kernels against their references; sessions and golden models; the tuner at the shapes of
# DeepSeek-V2-Lite; `fathom bench` of that preset in q8_0 and q4_k (random weights, made on the device):
# roofs, time of a launch, every kernel, prompts, decoding behind 0, 4k and 16k tokens, 1 to 8 sessions.
# PRESET and FORMATS in the environment choose other ones, FATHOM_TEST_DEVICE a device. Exit code 1 when a
# part failed; the rest is run all the same.
set -uo pipefail
cd "$(dirname "$0")" || exit 1

pack() {
  local build=../build/debian-bookworm-release stage file
  file=$(realpath -m "$1")
  stage=$(mktemp -d)
  mkdir "$stage/lib"
  for program in fathom tests/test_gpu tests/test_session; do
    [ -x "$build/$program" ] || { echo "no $build/$program: run ./fathom test -N first" >&2; return 1; }
    strip -o "$stage/$(basename "$program")" "$build/$program"
  done
  # What they link, but for what every Linux has in one piece with its kernel's interface: glibc.
  for library in $(ldd "$build/fathom" "$build/tests/test_gpu" | awk '$2 == "=>" { print $3 }' | sort -u) \
                 /usr/lib/x86_64-linux-gnu/libvulkan.so.1; do
    case $(basename "$library") in
      libc.so*|libm.so*|libpthread*|libdl*|librt*|ld-linux*) ;;
      *) cp -L "$library" "$stage/lib/" ;;
    esac
  done
  cp real_gpu.sh "$stage/"
  mkdir -p "$stage/tests" && cp -r golden "$stage/tests/" # what test_session reads of the repository
  tar -C "$stage" -cJf "$file" . && rm -rf "$stage"
  local bytes
  bytes=$(stat -c %s "$file")
  echo "$file: $((bytes >> 20)) MiB"
  [ "$bytes" -lt $((60 << 20)) ] || { echo "more than 60 MiB" >&2; return 1; }
}

# part NAME SECONDS COMMAND...: runs it, says how it ended and keeps what it printed.
part() {
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  timeout "$limit" "$@" > "$out/$name.txt" 2>&1 || status=$?
  local verdict=passed
  [ $status = 0 ] || verdict="FAILED ($status)"
  [ $status = 124 ] && verdict="OUT OF TIME"
  printf '%-22s %4d s  %s\n' "$name" $((SECONDS - start)) "$verdict"
  [ $status = 0 ] || { failed=1; tail -n 5 "$out/$name.txt"; }
}

run() {
  out=$(realpath -m "${1:-results}")
  failed=0
  mkdir -p "$out"
  export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} XDG_CACHE_HOME=$out/cache
  export FATHOM_SOURCE=$PWD
  local device=${FATHOM_TEST_DEVICE:-} preset=${PRESET:-v2-lite}
  part devices 60 ./fathom devices -v
  part kernels 150 ./test_gpu -tc='ops:*,formats:*,pace:*'
  part sessions 120 ./test_session -tc='golden*,flight*,loss*,tuning*,cache*'
  for format in ${FORMATS:-q8_0 q4_k}; do
    part "bench-$format" 180 ./fathom bench ${device:+--device "$device"} --preset "$preset" \
      --format "$format" --json "$out/bench-$format.json" --html "$out/bench-$format.html"
  done
  part devices-tuned 60 ./fathom devices -v
  rm -rf "$XDG_CACHE_HOME"
  echo "results: $out"
  return $failed
}

case ${1:-} in
  pack) pack "${2:?where to}" ;;
  run) run "${2:-}" ;;
  *) sed -n '2,/^set/{/^set/!p}' "$0"; exit 2 ;;
esac
