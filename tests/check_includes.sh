#!/usr/bin/env bash
# Checks who includes whom in the tree given (default: this one), and prints every violation as file:line: message.
#   core <- {vision, audio, text} <- fusion <- {serve, cli, samples, bench};  core <- train
#   public headers (HEADERS in each folder's CMakeLists.txt) include the standard library and public headers only
#   intrinsics are included in core/kernels/ only
#   no text names a place in somebody's file system
set -euo pipefail
export LC_ALL=C
cd "${1:-$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/..}"

violations="$(mktemp)"
trap 'rm -f "$violations"' EXIT

tree() {
  if git rev-parse --is-inside-work-tree > /dev/null 2>&1; then
    git ls-files --cached --others --exclude-standard | while IFS= read -r file; do
      if [ -f "$file" ]; then printf '%s\n' "$file"; fi
    done
  else
    find . \( -name .git -o -path './build*' \) -prune -o -type f -print | sed 's|^\./||' | sort
  fi
}

public_headers() {
  local list
  for list in */CMakeLists.txt; do
    sed 's/#.*//' "$list" | tr -s ' ()\n' '\n' |
      awk -v folder="${list%%/*}" '/^HEADERS$/ { on = 1; next } /^[A-Z_]+$/ { on = 0 } on { print folder "/" $0 }'
  done
  echo core/version.h
}

files="$(tree)"
sources="$(grep -E '^[^/]+/.*\.(h|cpp)$' <<< "$files" | grep -vE '^(tests|tools|docs|models|recipes)/' || true)"
if [ -z "$sources" ]; then
  echo "no sources in $PWD" >&2
  exit 2
fi

tr '\n' '\0' <<< "$sources" | xargs -0 awk -v public="$(public_headers | tr '\n' ' ')" -v all="$(tr '\n' ' ' <<< "$sources")" '
  function complain(what) { print FILENAME ":" FNR ": " what }
  function set_of(words, into,   parts, n, i) { n = split(words, parts, " "); for (i = 1; i <= n; ++i) into[parts[i]] = 1 }
  BEGIN {
    may["core"] = "core"
    may["vision"] = "core vision"
    may["audio"] = "core audio"
    may["text"] = "core text"
    may["fusion"] = "core vision audio text fusion"
    may["train"] = "core train"
    towers = may["fusion"] " train"
    may["serve"] = towers " serve"
    may["cli"] = towers " serve cli"
    may["samples"] = towers " samples"
    may["bench"] = towers " bench"
    set_of(public, is_public)
    set_of(all, exists)
    exists["core/version.h"] = 1
  }
  FNR == 1 {
    folder = FILENAME
    sub(/\/.*/, "", folder)
    if (!(folder in may)) { complain("folder " folder " has no place in the include rule"); nextfile }
  }
  /^[ \t]*#[ \t]*include[ \t]*["<]/ {
    quoted = $0 ~ /include[ \t]*"/
    path = $0
    sub(/^[^"<]*["<]/, "", path)
    sub(/[">].*/, "", path)
    target = path
    sub(/\/.*/, "", target)
    if (!quoted && target in may && path != target) complain("<" path "> is ours: include it as \"" path "\"")
    if (quoted && !(path in exists)) complain("\"" path "\" is not a file of this tree, seen from its root")
    if (quoted && index(" " may[folder] " ", " " target " ") == 0) complain(folder " must not include " target " (\"" path "\")")
    if (FILENAME in is_public) {
      if (!quoted && path !~ /^[a-z_0-9]+$/) complain("a public header includes <" path ">, which is not the standard library")
      if (quoted && !(path in is_public)) complain("a public header includes \"" path "\", which is not public")
    }
    if (path ~ /intrin\.h$|^arm_[a-z]+\.h$/ && FILENAME !~ /^core\/kernels\//) complain("intrinsics outside of core/kernels")
  }' > "$violations"

tr '\n' '\0' <<< "$files" | xargs -0 grep -nIE '(^|[^A-Za-z0-9_.~}])/(work|root|home|Users)/' /dev/null |
  sed 's/^\([^:]*:[0-9]*\):/\1: names a place in a file system: /' >> "$violations" || true

if [ -s "$violations" ]; then
  cat "$violations"
  echo "$(wc -l < "$violations") violations of the include rule"
  exit 1
fi
echo "include rule: $(wc -l <<< "$sources") files, no violation"
