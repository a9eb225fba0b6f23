#!/bin/bash
# The command as a person meets it: exit codes, what goes to which stream, standard input, folders, interruption.
# Usage: cli_test.sh PROGRAM SOURCE_DIR
set -u
program=$1
photo=$2/docs/media/astronaut.jpg
sound=$2/docs/media/weather.mp3
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

# check NAME EXPECTED_CODE STDOUT_PATTERN STDERR_PATTERN COMMAND...: patterns are extended regular expressions for the
# whole stream, lines joined by |; "" means that the stream is empty.
check() {
  local name=$1 code=$2 want_out=$3 want_err=$4
  shift 4
  "$@" >"$work/out" 2>"$work/err"
  local got=$? out err
  out=$(tr '\n' '|' <"$work/out") err=$(tr '\n' '|' <"$work/err")
  if [[ $got != "$code" || ! $out =~ ^($want_out)$ || ! $err =~ ^($want_err)$ ]]; then
    printf 'FAILED %s: code %s (expected %s)\n  out: %s\n  err: %s\n' "$name" "$got" "$code" "$out" "$err"
    failed=1
  fi
}
from() { local file=$1; shift; "$@" <"$file"; }
to_full() { "$@" >/dev/full; }
head_of() { "$@" | head -n 1; return "${PIPESTATUS[0]}"; }

mkdir -p "$work/photos/below" "$work/none"
cp "$photo" "$work/photos/a.JPG"
cp "$photo" "$work/photos/below/b.jpg"
echo no photo >"$work/note.txt"
head -c 100 /dev/zero >"$work/samples"
head -c 64000 /dev/zero >"$work/silence"
sentence='[A-Z][^|]+\|'

for numbers in f32 bf16 int8; do
  check "keys and values in $numbers" 0 "$sentence" '' "$program" caption --kv-cache "$numbers" "$photo"
done
check 'keys and values in what is not there' 2 '' 'tessera: .*--kv-cache.*' "$program" caption --kv-cache int4 "$photo"

check 'no command' 2 '' 'tessera: .*' "$program"
check 'unknown command' 2 '' 'tessera: "sing" is not a command.*\|' "$program" sing
check 'unknown option' 2 '' 'tessera: .*--loud.*' "$program" caption --loud x.jpg
check 'rate out of range' 2 '' 'tessera: .*--rate.*' "$program" transcribe --pcm s16le --rate 0 x
check 'caption' 0 "$sentence" '' "$program" caption "$photo"
check 'photo on standard input' 0 "$sentence" '' from "$photo" "$program" caption -
check 'after --' 0 "$sentence" '' "$program" caption --threads 1 -- "$photo"
check 'folder' 0 "[^|]*/a.JPG	$sentence[^|]*/below/b.jpg	$sentence" '' "$program" caption "$work/photos"
check 'the rest goes on' 1 "[^|]*astronaut.jpg	$sentence" \
  'tessera: [^|]*/none: this folder has no images[^|]*\|tessera: [^|]*/note.txt: not an image[^|]*\|tessera: gone: [^|]*\|' \
  "$program" caption "$work/none" "$work/note.txt" gone "$photo"
check 'json errors' 1 '\{"file":"gone","error":"gone: [^"]*"\}\|' 'tessera: gone: [^|]*\|' "$program" caption --json gone
check 'speech on standard input' 0 "$sentence" '' from "$sound" "$program" transcribe -
check 'speech as json' 0 '\{"file":.*"text":.*"ids":.*"language":.*"segments":\[\{"start":0.0,.*"stop_reason":"[a-z_]+".*\}\|' '' \
  "$program" transcribe --json "$sound"
check 'json has the time of each stage' 0 \
  '.*"no_speech_prob":0\.0[0-9]*.*"encode_s":(0\.0*)?[1-9][^|]*"prefill_s":(0\.0*)?[1-9][^|]*"decode_s":(0\.0*)?[1-9][^|]*\|' '' "$program" transcribe --json "$sound"
check 'silence' 0 '\|' '' from "$work/silence" "$program" transcribe --pcm s16le -
check 'silence as json' 0 '\{"file":"-","text":"","ids":\[\],"language":"","segments":\[\],"duration":2.0,[^|]*\|' '' \
  from "$work/silence" "$program" transcribe --json --pcm s16le -
check 'silence, written down' 0 '[^|]*[A-Za-z][^|]*\|' '' \
  from "$work/silence" "$program" transcribe --no-speech-threshold 1 --pcm s16le -
words=$("$program" transcribe "$sound")
check 'a photo beside speech' 0 " $words\|" '' "$program" prompt --task transcribe --image "$photo" --audio "$sound"
check 'speech without a sound' 2 '' 'tessera: the task "transcribe" attends to sounds alone, but was given an image[^|]*\|' \
  "$program" prompt --task transcribe --image "$photo"
check 'folder as samples' 1 '' 'tessera: [^|]*/photos: is a directory[^|]*\|' "$program" transcribe --pcm s16le "$work/photos"
check 'no samples' 1 '' 'tessera: /dev/null: PCM: no samples[^|]*\|' "$program" transcribe --pcm s16le /dev/null
check 'disk full' 1 '' 'tessera: standard output: No space left on device\|' to_full "$program" caption "$photo"
check 'disk full for help' 1 '' 'tessera: standard output: No space left on device\|' to_full "$program" --help
check 'closed pipe' 0 "$photo	$sentence" '' head_of "$program" caption "$photo" "$photo" "$photo"
check 'no default model' 1 '' 'tessera: nowhere: not a checkpoint directory.*' \
  env TESSERA_MODEL=nowhere "$program" caption "$photo"

check 'quantize' 0 '[^|]*/small: [0-9]+ matrices with 8 bits, 0 with 4; [0-9.]+ MB instead of [0-9.]+\|' '' \
  "$program" quantize "$2/tests/data/families/vit-classify" "$work/small"
check 'what was quantised' 0 '.*int-quantized.*unused +nothing\|' '' "$program" info "$work/small"
cp -r "$2/tests/data/families/whisper-long" "$work/bare" && rm "$work/bare/tokenizer.json"
check 'what is missing' 0 '.*missing +tokenizer.json \(or vocab.json and merges.txt\)\|unused +nothing\|' '' "$program" info "$work/bare"
check 'no tokenizer' 1 '' 'tessera: [^|]*/bare: has no tokenizer.json[^|]*\|' "$program" transcribe -m "$work/bare" "$sound"
check 'quantize over something' 2 '' 'tessera: [^|]*/photos: is there already[^|]*\|' \
  "$program" quantize "$2/tests/data/families/vit-classify" "$work/photos"
check 'quantize twice' 2 '' 'tessera: [^|]*/small: is quantised already\|' "$program" quantize "$work/small" "$work/smaller"

# Calibration: photos for a ViT.
check 'calibrate' 0 '[^|]*/told: [0-9]+ matrices with 8 bits[^|]*\|13 of them calibrated with 2 examples\|' '' \
  "$program" quantize "$2/tests/data/families/vit-classify" "$work/told" --calibration "$2/docs/media" --calibration-examples 2
check 'what was calibrated' 0 '.*int-quantized.*unused +nothing\|' '' "$program" info "$work/told"
check 'calibrate as json' 0 '\{"file":.*"calibrated":13,"examples":2\}\|' '' \
  "$program" quantize --json "$2/tests/data/families/vit-classify" "$work/told2" --calibration "$work/photos"
check 'calibrate with text' 1 '' 'tessera: [^|]*/note.txt: is taken for a text, but [^|]*\|' \
  "$program" quantize "$2/tests/data/families/vit-classify" "$work/never" --calibration "$work/note.txt"
check 'calibrate with nothing' 1 '' 'tessera: gone: there is no such file\|' \
  "$program" quantize "$2/tests/data/families/vit-classify" "$work/never" --calibration gone
check 'calibrate with no examples' 2 '' 'tessera: .*--calibration-examples.*' \
  "$program" quantize a b --calibration c --calibration-examples 0
check 'calibrate on its own texts' 1 '' 'tessera: [^|]*/vit-classify: can.t write texts by itself; give data to calibrate on\|' \
  "$program" quantize "$2/tests/data/families/vit-classify" "$work/never" --self-calibration
check 'calibrate on both' 2 '' 'tessera: .*--calibration excludes --self-calibration.*' \
  "$program" quantize a b --calibration c --self-calibration
[[ ! -e $work/never ]] || { echo 'FAILED calibrate: something was written'; failed=1; }

# Scores of answers.
lines() { printf '%s\n' "$@" > "$work/list.jsonl"; }
lines "{\"audio\": \"$sound\", \"text\": \"the weather is FINE today and we're going to the peach\"}"
check 'word errors' 0 'examples    1\|wer         8.33 %\|cer         1.82 %\|normalizer  english\|' '' "$program" evaluate "$work/list.jsonl" -o "$work/answers.jsonl"
check 'answers again' 0 '\{"file":"[^|]*answers.jsonl","items":1,"failed":0,"scores":\{"wer":0.08333333333333333\},"normalizer":"english"\}\|' '' \
  "$program" evaluate --json --metric wer --normalizer english "$work/answers.jsonl"
check 'answers to a device' 1 '' 'tessera: /dev/null: is not an ordinary file[^|]*\|' "$program" evaluate "$work/answers.jsonl" -o /dev/null
echo noise > "$work/noise.mp3"
lines "{\"audio\": \"$sound\", \"text\": \"the weather\"}" '{"audio": "noise.mp3", "text": "noise"}'
check 'one of two recordings' 1 'examples    1\|failed      1\|wer .*' 'tessera: [^|]*list.jsonl:2: [^|]*noise.mp3[^|]*\|' "$program" evaluate "$work/list.jsonl"
lines "{\"image\": \"$photo\", \"text\": [\"a man in a red jacket\", \"an astronaut\"]}"
check 'captions' 0 'examples    1\|bleu-1 .*\|cider-d     0.00\|' '' "$program" evaluate "$work/list.jsonl"
lines '{"prediction": "a", "label": "a"}' '{"prediction": "b", "label": "a"}'
check 'classes' 0 'examples    2\|accuracy    50.00 %\|macro-f1    33.33 %\|\|truth	given	count\|a	a	1\|a	b	1\|' '' "$program" evaluate --confusion "$work/list.jsonl"
check 'a metric that does not fit' 2 '' 'tessera: metric "wer" does not fit[^|]*accuracy, macro-f1\|' "$program" evaluate --metric wer "$work/list.jsonl"
lines '{"prompt": "a", "completion": "a"}' '{"text": "b"}'
check 'kinds are scored one at a time' 2 '' 'tessera: [^|]*list.jsonl: examples of several kinds[^|]*\|' "$program" evaluate "$work/list.jsonl"
lines '{"prediction": "a", "label": "a"}' '' '{"text": "b"}'
check 'two kinds of examples' 1 '' 'tessera: [^|]*list.jsonl:3: another kind[^|]*\|' "$program" evaluate "$work/list.jsonl"
lines '{"prediction": "a", "label": '
check 'no JSON' 1 '' 'tessera: [^|]*list.jsonl:1[^|]*\|' "$program" evaluate "$work/list.jsonl"
lines '{"image": "gone.jpg", "label": "cat"}'
check 'no such photo' 1 '' 'tessera: [^|]*list.jsonl:1: there is no file [^|]*gone.jpg\|' "$program" evaluate "$work/list.jsonl"
lines "{\"image\": \"$photo\", \"label\": \"unheard of\"}"
check 'no such class' 1 '' 'tessera: [^|]*list.jsonl:1: "unheard of" is none of[^|]*\|' \
  "$program" evaluate -m "$2/tests/data/families/vit-classify" "$work/list.jsonl"

# A tiny image tower learns two classes; what it becomes is a checkpoint like any other.
tiny=$2/tests/data/families/vit-classify
mkdir -p "$work/data/man" "$work/data/wave"
cp "$photo" "$work/data/man/a.jpg"
cp "$2/docs/media/weather.png" "$work/data/wave/b.png"
learn() { "$program" finetune --json --batch 2 "$@"; }
check 'what would be learnt' 0 '.*"examples":2,"targets":2,.*"new_head":true,"steps":3,.*' '' learn --dry-run -m "$tiny" -o "$work/no" "$work/data"
check 'fine-tuning' 0 '\{"run":"[^|]*/tuned","loss":.*"held_out_right":.*' 'tessera: head, step 1: held-out loss .*tessera: all, step 2: .*' \
  learn -m "$tiny" --recipe last-layer --rate 0.01 --steps 4 --head-share 0.5 --evaluate-every 1 --validation "$work/data" -o "$work/tuned" "$work/data"
check 'what was fine-tuned' 0 '[0-9.]+	(man|wave)\|[0-9.]+	(man|wave)\|' '' "$program" classify -m "$work/tuned" "$photo"
check 'fine-tuned twice' 2 '' 'tessera: [^|]*/tuned: has checkpoints[^|]*\|' learn -m "$tiny" -o "$work/tuned" "$work/data"
check 'fine-tuning goes on' 0 '\{"run".*' 'tessera: all: going on from step 2\|' learn -m "$tiny" --resume --steps 2 -o "$work/tuned" "$work/data"
check 'a run from a run' 0 '\{"run".*' '' learn -m "$work/tuned" --steps 1 -o "$work/again" "$work/data"
check 'has its own log' 0 '1\|' '' grep -c loss "$work/again/log.jsonl"
check 'a picture of runs' 0 '[^|]*/tuned/plot.png\|' '' "$program" plot "$work/tuned" "$work/tuned/head"
check 'it is one' 0 '1\|' '' grep -c PNG "$work/tuned/plot.png"
check 'no run' 1 '' 'tessera: [^|]*photos/log.jsonl: can.t be read[^|]*\|' "$program" plot "$work/photos"
check 'nothing to train' 2 '' 'tessera: no parameter.s name matches "nose\*"[^|]*\|' learn -m "$tiny" --only 'nose*' -o "$work/no" "$work/data"
lines "{\"audio\": \"$sound\", \"text\": \"weather\"}"
check 'a recording that is too long' 1 '' 'tessera: [^|]*list.jsonl:1: [^|]*longer than 1 s[^|]*\|' learn -m "$2/tests/data/families/whisper-english" -o "$work/no" "$work/list.jsonl"
check 'a model without ears' 1 '' 'tessera: [^|]*no sound tower[^|]*\|' learn -m "$tiny" -o "$work/no" "$work/list.jsonl"
lines "{\"image\": \"$photo\", \"label\": 99}"
check 'a class that is not there' 1 '' 'tessera: [^|]*list.jsonl:1: "99" is none of the[^|]*\|' learn -m "$tiny" -o "$work/no" "$work/list.jsonl"

# An adapter beside a checkpoint, and in it.
printf '{"image": "%s", "label": 1}\n' "$photo" > "$work/index.jsonl"
gpt=$2/tests/data/families/gpt2-base
check 'an adapter is merged' 0 '' '' "$program" merge "$gpt" "$work/merged" --adapter "$2/tests/data/adapters/gpt2-base"
check 'what was merged' 0 '.*family +gpt2\|.*unused +nothing\|' '' "$program" info "$work/merged"
check 'an adapter of another model' 1 '' 'tessera: [^|]*it is an adapter for another model\|' "$program" merge "$gpt" "$work/no" --adapter "$2/tests/data/adapters/whisper-english"
check 'LoRA' 0 '\{"run":"[^|]*/lora",.*' '' learn -m "$tiny" --lora 2 --lora-target query --steps 2 -o "$work/lora" "$work/index.jsonl"
check 'with its adapter' 0 '[0-9.]+	[^|]*\|' '' "$program" classify -m "$tiny" --adapter "$work/lora" --top 1 "$photo"

# A tokenizer, a tiny GPT, and what the model writes after it was trained.
corpus=$2/tests/data/training/corpus.txt
gpt_of() { "$program" train gpt --tokenizer "$work/tok" --layers 1 --heads 2 --context 16 --batch 2 --warmup 2 --width "$@"; }
gpt() { gpt_of 8 "$@"; }
check 'train needs to know what' 2 '' 'tessera: .*' "$program" train
check 'train a tokenizer' 0 "$work/tok: 300 tokens, from [0-9]+ bytes of text\|" '' \
  "$program" train tokenizer --vocab-size 300 -o "$work/tok" "$corpus"
check 'too little text for so many tokens' 0 '[^|]*tok2: [0-9]+ tokens.*' 'tessera: only [0-9]+ tokens: .*\|' \
  "$program" train tokenizer --vocab-size 9000 -o "$work/tok2" "$corpus"
check 'a text that is not there' 1 '' 'tessera: gone: can.t be read\|' gpt -o "$work/run" gone
check 'a text that is too short' 2 '' 'tessera: the training text has [0-9]+ tokens; .*\|' gpt -o "$work/run" "$work/note.txt"
check 'heads that do not divide' 2 '' 'tessera: 2 heads do not divide a width of 9\|' gpt_of 9 -o "$work/run" "$corpus"
check 'what would be trained' 0 'parameters +3416\|vocabulary +300 tokens\|.*' '' gpt --dry-run -o "$work/run" "$corpus"
check 'train' 0 "$work/run: step 4: loss 5\.[0-9]+, [0-9]+ tokens/s\|" \
  'tessera: step 2: loss 5[^|]*, held-out perplexity [0-9.]+\|tessera: step 4: [^|]*\|' \
  gpt --steps 4 --evaluate-every 2 --checkpoint-every 2 -o "$work/run" "$corpus"
check 'a run is not overwritten' 2 '' 'tessera: .*: has checkpoints of a run already; .*\|' gpt -o "$work/run" "$corpus"
check 'a run goes on' 0 "$work/run: step 6: .*" 'tessera: going on from step 4\|.*' gpt --resume --steps 6 -o "$work/run" "$corpus"
check 'log' 0 '6\|' '' from "$work/run/log.jsonl" grep -c '"loss":'
check 'the model is opened' 0 '\{"file":"",.*"ids":\[[0-9,]+\].*\|' '' \
  "$program" generate --model "$work/run" --json -n 4 'First Citizen'

# Blocks that are run again give the same model, dropout included.
dropping() { gpt --dropout 0.2 --steps 3 --evaluate-every 0 "$@" "$corpus"; }
check 'with dropout' 0 '.*step 3: loss [0-9.]+, .*' '' dropping -o "$work/kept"
check 'attention drops' 0 '1\|' '' grep -c '"attn_pdrop": 0.2' "$work/kept/config.json"
check 'blocks run again' 0 '.*step 3: loss [0-9.]+, .*' '' dropping --checkpoint-activations -o "$work/less"
check 'it is the same model' 0 '' '' cmp "$work/kept/model.safetensors" "$work/less/model.safetensors"
check 'fine-tuned with blocks kept' 0 '\{"run".*' '' learn -m "$tiny" --steps 2 -o "$work/tower" "$work/data"
check 'and run again' 0 '\{"run".*' '' learn -m "$tiny" --checkpoint-activations --steps 2 -o "$work/tower-less" "$work/data"
check 'it is the same tower' 0 '' '' cmp "$work/tower/model.safetensors" "$work/tower-less/model.safetensors"
memory_of() { learn --dry-run -m "$tiny" -o "$work/no" "$@" "$work/data" | sed 's/.*"memory_bytes":\([0-9]*\).*/\1/'; }
check 'in less memory' 0 '' '' test "$(memory_of --checkpoint-activations)" -lt "$(memory_of)"

# It learns to tell texts apart.
printf 'text,label\n"First, a ""Citizen""",yes\nnothing else,no\n' > "$work/table.csv"
check 'texts that would be learnt' 0 '.*"targets":2,.*"new_head":true,.*' '' learn --dry-run -m "$work/run" -o "$work/no" "$work/table.csv"
check 'a table is learnt' 0 '\{"run":"[^|]*/texts",.*' '' learn -m "$work/run" --bf16 --rate 0.01 --rate-of 'score.*=2' --steps 30 -o "$work/texts" "$work/table.csv"
check 'a text is classified' 0 '[0-9.]+	no\|' '' "$program" classify -m "$work/texts" --top 1 --text 'nothing else'
check 'texts are scored' 0 'examples    2\|accuracy    100.00 %\|.*' '' "$program" evaluate -m "$work/texts" "$work/table.csv"
check 'neither images nor texts' 2 '' 'tessera: give images, or texts with --text[^|]*\|' "$program" classify -m "$work/texts"
check 'rates of nothing' 2 '' 'tessera: a learning rate for "nose\.\*"[^|]*\|' learn -m "$work/run" --rate-of 'nose.*=2' -o "$work/no" "$work/table.csv"
check 'an image tower has no texts' 1 '' 'tessera: [^|]*texts[^|]*\|' learn -m "$tiny" -o "$work/no" "$work/table.csv"

# It learns to answer.
check 'a model to talk to' 0 '.*' 'tessera: step 2: .*' "$program" train gpt --tokenizer "$work/tok" --layers 1 --heads 2 --context 128 --batch 2 --width 32 --steps 2 \
  -o "$work/talk" "$corpus"
question='{"role": "user", "content": "Who speaks?"}'
printf '%s\n' "{\"messages\": [$question, {\"role\": \"assistant\", \"content\": \"The First Citizen\"}]}" \
  "{\"messages\": [{\"role\": \"system\", \"content\": \"No\"}, $question, {\"role\": \"assistant\", \"content\": \"None\"}]}" > "$work/chat.jsonl"
check 'no chat template' 2 '' 'tessera: [^|]*/talk: has no chat template[^|]*--chat-template chatml\|' learn -m "$work/talk" --dry-run -o "$work/no" "$work/chat.jsonl"
check 'nor for questions' 2 '' 'tessera: [^|]*/talk: has no chat template[^|]*\|' "$program" generate -m "$work/talk" --chat 'Who speaks?'
check 'nor for scores' 2 '' 'tessera: [^|]*/talk: has no chat template[^|]*\|' "$program" evaluate -m "$work/talk" "$work/chat.jsonl"
check 'conversations that would be learnt' 0 '.*"examples":2,"targets":[0-9]+,.*' '' \
  learn -m "$work/talk" --chat-template chatml --dry-run -o "$work/no" "$work/chat.jsonl"
check 'conversations are learnt' 0 '\{"run":"[^|]*/talks",.*' '' \
  learn -m "$work/talk" --chat-template chatml --steps 80 --warmup 5 --rate 0.02 -o "$work/talks" "$work/chat.jsonl"
check 'with their template' 0 '1\|' '' grep -c im_start "$work/talks/chat_template.jinja"
check 'a question is answered' 0 'The First Citizen\|' '' "$program" generate -m "$work/talks" --chat -n 40 --temp 0 'Who speaks?'
check 'a system message counts' 0 'None\|' '' from <(echo -n 'Who speaks?') "$program" generate -m "$work/talks" --chat --system No -n 40 --temp 0 -
check 'a system message for nobody' 2 '' 'tessera: --system is for --chat\|' "$program" generate -m "$work/talks" --system No x
check 'answers are scored' 0 'examples    2\|perplexity  1\.[0-9]+\|' '' "$program" evaluate -m "$work/talks" "$work/chat.jsonl"
check 'an adapter with a template' 0 '\{"run":"[^|]*/talk-lora",.*' '' \
  learn -m "$work/talk" --lora 2 --chat-template "$work/talks/chat_template.jinja" --steps 2 -o "$work/talk-lora" "$work/chat.jsonl"
check 'which is found' 0 '.+' '' "$program" generate -m "$work/talk" --adapter "$work/talk-lora" --chat -n 2 'Who speaks?'
check 'and merged' 0 '' '' "$program" merge "$work/talk" "$work/talk-merged" --adapter "$work/talk-lora"
check 'both of them' 0 '1\|' '' grep -c im_start "$work/talk-merged/chat_template.jinja"
printf '{"messages": [{"role": "user", "content": [{"type": "image", "path": "%s"}, {"type": "text", "text": "a dog"}]}, {"role": "assistant", "content": "the cat"}]}\n' "$photo" >"$work/seen.jsonl"
printf '{%% for m in messages %%}{{ m.content }}<|endoftext|>{%% endfor %%}' >"$work/plain.jinja"
sees=$2/tests/data/families/tessera-memory
check 'photos in a conversation are learnt' 0 '\{"run":"[^|]*/seen",.*' '' learn -m "$sees" --chat-template "$work/plain.jinja" --steps 1 -o "$work/seen" "$work/seen.jsonl"
check 'and asked about' 0 '.*\|' '' "$program" prompt -m "$work/seen" --chat '{image}a dog' --image "$photo" -n 3
check 'and scored' 0 'examples    1\|perplexity  [0-9.]+\|' '' "$program" evaluate -m "$work/seen" "$work/seen.jsonl"
check 'photos where nothing sees' 1 '' 'tessera: [^|]*: this checkpoint has no image tower to learn the examples of [^|]*\|' learn -m "$work/talk" -o "$work/no" "$work/seen.jsonl"
check 'a template for no conversation' 2 '' 'tessera: --chat-template is for[^|]*\|' learn -m "$work/talk" --chat-template chatml -o "$work/no" "$work/table.csv"
echo '{% if %}' > "$work/wrong.jinja"
check 'a template that is none' 1 '' 'tessera: [^|]*wrong.jinja:1: expected an expression[^|]*\|' \
  learn -m "$work/talk" --chat-template "$work/wrong.jinja" -o "$work/no" "$work/chat.jsonl"
printf '%s\n' "{\"messages\": [$question]}" > "$work/wrong.jsonl"
check 'a question without an answer' 1 '' 'tessera: [^|]*wrong.jsonl:1: messages\[0\].role: the last message is to be an answer[^|]*\|' \
  learn -m "$work/talks" --dry-run -o "$work/no" "$work/wrong.jsonl"
# Images and texts find each other.
clip=$2/tests/data/families/clip-published images=$2/tests/data/images
printf '{"image": "%s", "text": ["a dog", "two dogs play"]}\n' "$photo" > "$work/pairs.jsonl"
for file in png_rgb8.png bmp_24.bmp webp_lossy.webp; do printf '{"image": "%s", "text": "a %s"}\n' "$images/$file" "$file"; done >> "$work/pairs.jsonl"
number='[0-9.e-]+'
check 'embed' 0 "(\{\"input\":\"[^\"]*\",\"embedding\":\[(-?$number,?){11}\]\}\|){2}" '' "$program" embed -m "$clip" --text 'a dog' "$photo"
check 'similarity' 0 "file	cosine	probability	text\|[^|]*astronaut.jpg	-?0.[0-9]{4}	0.[0-9]{4}	a dog\|[^|]*	a red car\|" '' \
  "$program" embed -m "$clip" --similarity --text 'a dog' --text 'a red car' "$photo"
check 'similarity as json' 0 "\{\"file\":\"[^|]*\",\"texts\":\[\{\"text\":\"a dog\",\"cosine\":-?$number,\"probability\":1.0\}\]\}\|" '' \
  "$program" embed -m "$clip" --json --similarity --text 'a dog' "$photo"
check 'embed a photo that is not there' 1 '\{"input":"[^|]*\|' 'tessera: gone: [^|]*\|' "$program" embed -m "$clip" gone "$photo"
check 'embed nothing' 2 '' 'tessera: give images, or texts with --text[^|]*\|' "$program" embed -m "$clip"
check 'similarity to nothing' 2 '' 'tessera: --similarity compares images with texts[^|]*\|' "$program" embed -m "$clip" --similarity "$photo"
check 'embed with a classifier' 1 '' 'tessera: [^|]*vit-classify: is of type vit; images and texts[^|]*\|' "$program" embed -m "$tiny" "$photo"
check 'recall' 0 'images         4\|texts          5\| +recall@1 +recall@5 recall@10  median rank\|image to text( +[0-9.]+ %){3} +[0-9]\|text to image +[0-9.]+ % +100.00 % +100.00 % +[0-9]\|' '' \
  "$program" evaluate -m "$clip" -o "$work/ranks.jsonl" "$work/pairs.jsonl"
check 'ranks of each image' 0 '4\|' '' from "$work/ranks.jsonl" grep -cE '"rank_of_text":[1-5],"ranks_of_image":\[[1-4](,[1-4])?\]\}$'
check 'recall as json' 0 '\{"file":.*"items":2,"texts":3,"failed":0,"scores":\{"image_to_text":\{"recall@1":.*"text_to_image":.*"median_rank":[12]\}\}\}\|' '' \
  "$program" evaluate -m "$clip" --json --limit 2 "$work/pairs.jsonl"
check 'recall has no other metrics' 2 '' 'tessera: [^|]*without --metric\|' "$program" evaluate -m "$clip" --metric bleu "$work/pairs.jsonl"
check 'pairs are learnt' 0 '\{"run":"[^|]*/pairs",.*' 'tessera: all, step [12]: held-out loss [^|]* % of pairs right\|.*' \
  learn -m "$clip" --only '*projection*' --only logit_scale --steps 2 --validation "$work/pairs.jsonl" -o "$work/pairs" "$work/pairs.jsonl"
check 'a dual encoder of 8 bits' 0 '[^|]*/clip8: [0-9]+ matrices with 8 bits[^|]*\|' '' "$program" quantize "$clip" "$work/clip8"
check 'is opened' 0 '\{"input":"a dog","embedding":.*' '' "$program" embed -m "$work/clip8" --text 'a dog'
check 'an adapter of a dual encoder' 0 '\{"run":"[^|]*/pairs-lora",.*' '' learn -m "$clip" --lora 2 --steps 1 -o "$work/pairs-lora" "$work/pairs.jsonl"
check 'embed with it' 0 '\{"input":"a dog","embedding":.*' '' "$program" embed -m "$clip" --adapter "$work/pairs-lora" --text 'a dog'
check 'it writes no captions' 1 '' 'tessera: [^|]*\|' "$program" caption -m "$clip" "$photo"
check 'one pair a batch' 2 '' 'tessera: pairs are told apart within a batch[^|]*\|' "$program" finetune -m "$clip" --batch 1 -o "$work/no" "$work/pairs.jsonl"
check 'what was learnt opens' 0 '.*family +clip\|.*shared_space +width 11\|.*unused +nothing\|' '' "$program" info "$work/pairs"
check 'a new dual encoder, looked at' 0 'examples +4\|to be learnt +4 pairs\|.*' '' "$program" train retrieval --dry-run --image-tower "$tiny" \
  --tokenizer "$work/tok" --text-width 8 --text-layers 1 --dim 6 -o "$work/none/search" "$work/pairs.jsonl"
check 'and not written' 2 '' '.*' ls "$work/none/search"
search() { "$program" train retrieval --tokenizer "$work/tok" --text-width 8 --text-layers 1 --text-context 12 --dim 6 "$@" "$work/pairs.jsonl"; }
check 'a new dual encoder' 0 "$work/search: loss [0-9.]+\|" '' search --image-tower "$tiny" --batch 4 --steps 3 --checkpoint-every 2 -o "$work/search"
check 'goes on' 0 "$work/search: loss .*" 'tessera: all: going on from step 3\|' search --image-tower "$tiny" --batch 4 --steps 5 --resume -o "$work/search"
check 'is scored' 0 'images         4\|.*' '' "$program" evaluate -m "$work/search" "$work/pairs.jsonl"
check 'of a clip, is a clip' 0 "$work/clip: loss .*" '' search --image-tower "$2/tests/data/families/clip-tower" --steps 1 -o "$work/clip"
check 'as info says' 0 '.*family +clip\|.*unused +nothing\|' '' "$program" info "$work/clip"
check 'a new one by the sigmoid loss' 0 "$work/sigmoid: loss .*" '' search --image-tower "$tiny" --loss sigmoid --steps 2 -o "$work/sigmoid"
check 'goes on by it' 0 "$work/sigmoid2: loss .*" '' "$program" finetune -m "$work/sigmoid" --batch 4 --steps 1 -o "$work/sigmoid2" "$work/pairs.jsonl"
check 'and judges each pair' 0 '[^|]*\|[^|]*	[-0-9.]+	0.0[0-9]+	x\|' '' "$program" embed -m "$work/sigmoid2" --similarity --text x "$photo"
check 'no bias for it' 2 '' 'tessera: [^|]*: the sigmoid loss needs a checkpoint with a logit_bias[^|]*\|' "$program" finetune -m "$clip" --loss sigmoid -o "$work/no" "$work/pairs.jsonl"
check 'a tower that is none' 1 '' 'tessera: [^|]*: the image tower is of type "gpt2"; [^|]*\|' search --image-tower "$gpt" -o "$work/no"
check 'heads that do not divide the text tower' 2 '' 'tessera: 3 heads do not divide a width of 8\|' search --image-tower "$tiny" --text-heads 3 -o "$work/no"
check 'no tokenizer for the text tower' 1 '' 'tessera: [^|]*: has no tokenizer.json\|' "$program" train retrieval --tokenizer "$work/none" --image-tower "$tiny" -o "$work/no" "$work/pairs.jsonl"

# Interrupted while it reads minutes of sound: no half window, and a word about where the text ends.
for _ in {1..40}; do cat "$sound"; done >"$work/long.mp3"
interrupted() {
  set -m  # so that the program in the background heeds SIGINT
  "$program" transcribe "$@" &
  local pid=$!
  for _ in {1..600}; do  # until it heeds SIGINT, which it does when the checkpoint is open
    [[ /proc/$pid/exe -ef $program ]] && grep -q '^SigCgt:.*[2367abef]$' /proc/$pid/status && break
    sleep 0.05
  done
  sleep 0.5
  kill -INT $pid
  wait $pid
}
check 'interrupted' 130 '([^|]+\|)?' '(tessera: [^|]*: damaged [^|]*\|)?tessera: [^|]*: interrupted; the text ends at [0-9:.]+\|' interrupted "$work/long.mp3"
exit $failed
