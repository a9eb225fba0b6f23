#!/usr/bin/env bash
# Builds the fuzz harnesses and runs each one: with Clang's libFuzzer where there is Clang, else with standalone.cpp.
# Usage: tests/fuzz/run.sh [SECONDS] [NAME...]    (60 seconds each; NAME without fuzz_)
# First inputs are the files in tests/fuzz/seeds/<name>/; what is found on the way stays in build/fuzz/corpus/<name>/.
# Exit code 1 where a harness died; the input that killed it is kept as build/fuzz/<name>-crash-...
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

seconds=60
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  seconds="$1"
  shift
fi
build=build/fuzz
compiler=g++
sanitizers=address,undefined
for candidate in clang++ clang++-{21,20,19,18,17,16,15,14}; do
  if command -v "$candidate" > /dev/null; then
    compiler="$candidate"
    sanitizers+=,fuzzer-no-link
    break
  fi
done
if [ ! -f "$build/build.ninja" ]; then
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER="$compiler" \
    -DTESSERA_SANITIZE="$sanitizers" -DTESSERA_BUILD_FUZZERS=ON -DTESSERA_BUILD_TESTS=OFF -DTESSERA_BUILD_CLI=OFF \
    -DTESSERA_BUILD_SAMPLES=OFF
fi

if [ $# -eq 0 ]; then
  for file in tests/fuzz/fuzz_*.cpp; do
    name="${file##*/fuzz_}"
    set -- "$@" "${name%.cpp}"
  done
fi
cmake --build "$build" --target "${@/#/fuzz_}"

status=0
for name in "$@"; do
  corpus="$build/corpus/$name"
  mkdir -p "$corpus"
  inputs=("$corpus")
  if [ -d "tests/fuzz/seeds/$name" ]; then inputs+=("tests/fuzz/seeds/$name"); fi
  if UBSAN_OPTIONS=print_stacktrace=1 "$build/bin/fuzz_$name" "-max_total_time=$seconds" -timeout=20 -rss_limit_mb=2048 \
      -print_final_stats=1 "-artifact_prefix=$build/$name-" "${inputs[@]}" > "$build/$name.log" 2>&1; then
    echo "$name: no failure in $(grep -oE 'Done [0-9]+ runs' "$build/$name.log" | tail -n 1 | cut -d' ' -f2) runs"
  else
    echo "$name: FAILED; the end of $build/$name.log:"
    tail -n 40 "$build/$name.log"
    status=1
  fi
done
exit "$status"
