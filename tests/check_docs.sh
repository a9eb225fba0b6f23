#!/usr/bin/env bash
# Keeps README.md and docs/ true:
#   every command in a ```console block is run, and what it prints is compared with what the page says
#   every ```cpp block is found, indentation aside, in a sample, a family or a golden test
#   every --option that a page names is in the help of some command
# check_docs.sh TESSERA [--write]      --write puts what the commands print into the pages
set -euo pipefail
export LC_ALL=C
program="$(readlink -f "$1")"
write="${2:-}"
root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
cd "$root"
failed=0
fresh="$(mktemp)"
trap 'rm -f "$fresh"' EXIT

complain() { printf '%s\n' "$*" >&2; failed=1; }

# What may differ: times, and the last milliseconds of a sound (FFmpeg's releases disagree about mp3).
steady() { sed -E 's/("(encode_s|prefill_s|decode_s|end|duration|no_speech_prob)":)[0-9.e-]+/\1N/g; s/(--> )[0-9:.]+/\1N/'; }

# The page with the output of its commands as it is now.
replay() {
  local line inside=''
  while IFS= read -r line; do
    case "$inside$line" in
      '```console') inside=yes ;;
      'yes```') inside='' ;;
      'yes$ ./tessera '*)
        printf '%s\n' "$line"
        bash -c "\"$program\" ${line#\$ ./tessera }" 2>&1 < /dev/null || true
        continue
        ;;
      yes*) continue ;;
    esac
    printf '%s\n' "$line"
  done
}

trimmed() { sed -E 's/^ +//' "$@"; }
sources="$(trimmed samples/*.cpp ./*/families/*.cpp tests/golden/*_test.cpp)"

check_cpp() {
  local line block='' inside=''
  while IFS= read -r line; do
    case "$inside$line" in
      '```cpp') inside=yes block='' ;;
      'yes```')
        inside=''
        [[ "$sources" == *"${block%$'\n'}"* ]] || complain "$1: this C++ is in no source:"$'\n'"$block"
        ;;
      yes*) block+="$line"$'\n' ;;
    esac
  done < <(trimmed "$1")
}

options="$("$root/tessera" --help-launcher; for command in '' caption transcribe prompt generate classify embed tokenize info evaluate quantize finetune merge plot bench 'train gpt' 'train tokenizer' 'train retrieval'; do
  "$program" $command --help
done)"
check_options() {
  local option
  for option in $(grep -vE 'cmake|ctest|\.py' "$1" | grep -oE -- '(^|[^-a-z])--[a-z][a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u); do
    grep -qE -- "$option([^-a-z]|$)" <<< "$options" || complain "$1: there is no option $option"
  done
}

for page in README.md docs/*.md; do
  replay < "$page" > "$fresh"
  if [ "$write" = --write ]; then
    cat "$fresh" > "$page"
  else
    diff -u --label "$page" --label "what the commands print" <(steady < "$page") <(steady < "$fresh") || failed=1
  fi
  check_cpp "$page"
  check_options "$page"
done
exit "$failed"
