#!/usr/bin/env bash
# Formats all C++ sources by .clang-format, or with --check only says which are not formatted.
# Every version of clang-format lays out some lines differently, so only version 14 is used.
# Exit code: 0 all is well, 1 something is not formatted, 3 there is no clang-format 14.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

formatter=''
for candidate in clang-format-14 clang-format; do
  if "$candidate" --version 2> /dev/null | grep -q 'version 14\.'; then
    formatter="$candidate"
    break
  fi
done
if [ -z "$formatter" ]; then
  echo "format: clang-format 14 is not here (apt-get install clang-format-14)" >&2
  exit 3
fi

arguments=(-i)
[ "${1:-}" != --check ] || arguments=(--dry-run -Werror)
find . \( -name .git -o -path './build*' -o -path ./shared \) -prune -o \( -name '*.h' -o -name '*.cpp' \) -print0 |
  xargs -0 -r -n 32 "$formatter" --style=file "${arguments[@]}"
