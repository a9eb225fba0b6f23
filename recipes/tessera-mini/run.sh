#!/bin/sh
# Trains tessera-mini anew, stage by stage; a stage that is complete is not done again, one that was cut goes on.
#
#     run.sh SHARED OUT       SHARED/models: vit-tiny-patch16-224, whisper-tiny.en, first-light
#                             SHARED/data: flickr8k, librispeech
#
# TESSERA names the program (default: tessera of the PATH), PYTHON an interpreter with NumPy.
set -eu
shared=$1 out=$2 here=$(dirname "$0")
tessera=${TESSERA:-tessera} python=${PYTHON:-python3}
mkdir -p "$out"

# What the untouched model hears: 420 recordings of the speakers that are trained with.
if [ ! -f "$out/transcripts.jsonl" ]; then
  "$python" "$here/data.py" --list-speech "$shared/data/librispeech" > "$out/speech.list"
  xargs "$tessera" transcribe --model "$shared/models/whisper-tiny.en" --json < "$out/speech.list" > "$out/transcripts.tmp"
  mv "$out/transcripts.tmp" "$out/transcripts.jsonl"
fi
"$python" "$here/data.py" "$out/data" --flickr8k "$shared/data/flickr8k" --librispeech "$shared/data/librispeech" \
  --transcripts "$out/transcripts.jsonl"
[ -d "$out/start" ] || "$python" "$here/start.py" "$out/start" --models "$shared/models"

# Trained are the adapter for captions and questions, the image projector, and the upper third of the image tower.
trained="--only adapters.* --freeze *.audio_embedding --only vision_projector.* --only vision_tower.layernorm.*"
for block in 8 9 10 11; do trained="$trained --only vision_tower.encoder.layer.$block.*"; done
rates="--rate-of vision_tower.*=0.15 --rate-of vision_projector.*=0.7"
rates="$rates --rate-of adapters.*norm*=0.3 --rate-of adapters.*embed_positions*=0.3"
set -f  # patterns are the program's

# stage NAME MODEL OPTIONS...
stage() {
  name=$1 model=$2
  shift 2
  [ -f "$out/$name/model.safetensors" ] && return
  "$tessera" finetune "$out/data/mixed.train.jsonl" --model "$out/$model" -o "$out/$name" --resume --bf16 \
    --checkpoint-every 100 --batch 24 --sampled-tokens 3000 --least-view 0.7 --average 0.99 $trained $rates "$@"
}
stage words start --texts 6 --steps 1900 --rate 7e-4 --warmup 60 --floor 0.03 --label-smoothing 0.05
stage reward words --texts 6 --steps 500 --rate 1e-4 --warmup 20 --floor 0.1 --draws 5 \
  --reward bleu --reward bleu --reward cider-d

# What a recording beside the photo is to a caption: one row, added to all of the recording's. Nothing else changes.
hear() {
  name=$1 model=$2
  shift 2
  [ -f "$out/$name/model.safetensors" ] && return
  "$tessera" finetune "$out/data/heard.train.jsonl" --model "$out/$model" -o "$out/$name" --resume --bf16 --batch 16 \
    --only adapters.caption.audio_embedding --sampled-tokens 3000 --texts 5 --draws 5 --reward bleu --reward bleu --reward cider-d "$@"
}
hear heard reward --steps 120 --rate 0.06 --warmup 5
hear mini heard --steps 70 --rate 0.05 --warmup 3 --seed 3

rm -rf "$out/tessera-mini"
"$tessera" quantize --half "$out/mini" "$out/tessera-mini"
