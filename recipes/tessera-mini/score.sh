#!/bin/sh
# Scores a checkpoint on what data.py held out: score.sh MODEL DATA [--dtype f32 ...]
#
# TESSERA names the program (default: tessera of the PATH).
set -eu
model=$1 data=$2
shift 2
tessera=${TESSERA:-tessera}
score() {
  echo "== $1"
  list=$2
  shift 2
  "$tessera" evaluate --model "$model" "$data/$list" "$@"
}
score 'captions, 4 beams' captions.dev.jsonl "$@"
score 'captions, greedy' captions.dev.jsonl --beam-size 1 "$@"
score 'captions with a recording in the prompt' captions-heard.dev.jsonl "$@"
score 'speech' speech.dev.jsonl "$@"
score 'speech with a photo in the prompt' speech-seen.dev.jsonl --metric wer "$@"
for kind in presence count colour doing where; do
  score "questions: $kind" "$kind.dev.jsonl" --metric exact "$@"
done
