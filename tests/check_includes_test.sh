#!/usr/bin/env bash
# Shows that check_includes.sh accepts a good tree and finds each kind of violation in it.
set -euo pipefail
checker="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/check_includes.sh"
tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
failures=0

# file PATH TEXT...: writes a file of the fixture tree, one line for each TEXT.
file() {
  mkdir -p "$tree/$(dirname "$1")"
  printf '%s\n' "${@:2}" > "$tree/$1"
}

good_tree() {
  rm -rf "${tree:?}"/*
  file core/CMakeLists.txt 'tessera_library(core HEADERS tensor.h' '  error.h PRIVATE Foo::foo)'
  file core/tensor.h '#include <vector>' '#include "core/error.h"' '#include "core/version.h"'
  file core/error.h '#include <string>'
  file core/hidden.h '#include <foo/foo.h>'
  file core/kernels/fast.cpp '#include <immintrin.h>' '#include "core/hidden.h"'
  file vision/tower.cpp '#include "core/tensor.h"'
  file text/model.h '#include "core/tensor.h"'
  file fusion/session.cpp '#include "text/model.h"'
  file cli/main.cpp '#include "text/model.h"' '#include <foo.hpp>'
  file tests/unit/core_test.cpp '#include <gtest/gtest.h>'
}

# expect MESSAGE PATH TEXT...: the good tree with this one file must be refused with this message, naming the file.
expect() {
  local output
  good_tree
  file "${@:2}"
  if output="$("$checker" "$tree")"; then
    echo "accepted: $2: ${*:3}"
    failures=$((failures + 1))
  elif ! grep -qE "^$2:[0-9]+: .*$1" <<< "$output"; then
    echo "refused without saying '$1' of $2: $output"
    failures=$((failures + 1))
  fi
}

good_tree
"$checker" "$tree" || failures=1

expect 'core must not include vision' core/tensor.cpp '#include "vision/tower.h"'
expect 'vision must not include text' vision/tower.cpp '#include <vector>' '#include "text/model.h"'
expect 'text must not include fusion' text/model.cpp '  #  include "fusion/session.h"'
expect 'audio must not include vision' audio/families/whisper.cpp '#include "vision/tower.h"'
expect 'train must not include text' train/tape.cpp '#include "text/model.h"'
expect 'fusion must not include cli' fusion/session.cpp '#include "cli/main.h"'
expect 'is ours' cli/main.cpp '#include <core/tensor.h>'
expect 'is not a file of this tree' core/tensor.cpp '#include "tensor.h"'
expect 'is not a file of this tree' core/tensor.cpp '#include "../core/tensor.h"'
expect 'is not the standard library' core/error.h '#include <nlohmann/json.hpp>'
expect 'is not the standard library' core/tensor.h '#include <unistd.h>'
expect 'is not public' core/error.h '#include "core/hidden.h"'
expect 'intrinsics outside' core/tensor.cpp '#include <immintrin.h>'
expect 'intrinsics outside' text/model.cpp '#include <arm_neon.h>'
expect 'no place in the include rule' extra/new.cpp '#include <vector>'
expect 'a place in a file system' docs/page.md 'see it' "in /""home/somebody/models"
expect 'a place in a file system' tests/make.py "open('/""root/data')"

rm -rf "${tree:?}"/*
if "$checker" "$tree" 2> /dev/null; then
  echo "accepted a tree without sources"
  failures=$((failures + 1))
fi
[ "$failures" -eq 0 ] && echo "every violation was found"
