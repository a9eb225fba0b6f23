"""Whisper: sound encoder, decoder, and generate() with its languages, timestamps and windows."""
import math

import numpy as np
import torch
from transformers import LogitsProcessorList, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.generation.logits_process import WhisperNoSpeechDetection
from transformers.models.whisper.modeling_whisper import sinusoids

from .common import (MIN_GAP, Checkpoint, GapRecorder, Retry, case, demand_stable, demand_varied, hidden_states,
                     integers, normal, randomize, rng, strip_floats)
from .tokenizer import TEXT_TOKENS, to_json, tokenizer

FRAMES = 100  # of a window: one second
POSITIONS = 48  # of the decoder
STEPS = FRAMES // 2 + 1  # timestamps 0.00 .. 1.00


class Vocabulary:
    """Text, end, start, languages, tasks and so on, timestamps: the order of the published vocabularies."""

    def __init__(self, languages):
        self.special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{l}|>" for l in languages), "<|translate|>",
                        "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
        self.times = [f"<|{0.02 * i:.2f}|>" for i in range(STEPS)]
        self.id = {t: TEXT_TOKENS + i for i, t in enumerate(self.special + self.times)}
        self.size = TEXT_TOKENS + len(self.id)
        self.languages = languages
        self.end, self.start = self.id["<|endoftext|>"], self.id["<|startoftranscript|>"]
        self.first_time = self.id["<|0.00|>"]
        self.tokenizer = tokenizer(self.special, self.times)
        assert self.tokenizer.get_vocab_size() == self.size

    def text(self, ids):
        return self.tokenizer.decode([i for i in ids if i < self.end])

    def generation_config(self, multilingual):
        i = self.id
        config = {"begin_suppress_tokens": [0, self.end], "bos_token_id": self.end,
                  "decoder_start_token_id": self.start, "eos_token_id": self.end, "is_multilingual": multilingual,
                  "max_initial_timestamp_index": 10, "max_length": POSITIONS, "no_timestamps_token_id": i["<|notimestamps|>"], "pad_token_id": self.end,
                  "prev_sot_token_id": i["<|startofprev|>"], "return_timestamps": False,
                  "suppress_tokens": [27, 30, 31, i["<|startoftranscript|>"], i["<|translate|>"], i["<|transcribe|>"],
                                      i["<|startoflm|>"], i["<|startofprev|>"], i["<|nospeech|>"]]}
        if multilingual:
            config["forced_decoder_ids"] = [[1, None], [2, i["<|transcribe|>"]]]
            config["lang_to_id"] = {f"<|{l}|>": i[f"<|{l}|>"] for l in self.languages}
            config["task_to_id"] = {"transcribe": i["<|transcribe|>"], "translate": i["<|translate|>"]}
        else:
            config["forced_decoder_ids"] = [[1, i["<|notimestamps|>"]]]
        return dict(sorted(config.items()))


def feature_extractor(mels):
    return WhisperFeatureExtractor(feature_size=mels, chunk_length=FRAMES // 100)


def preprocessor(mels):
    return {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": mels, "sampling_rate": 16000,
            "hop_length": 160, "n_fft": 400, "chunk_length": FRAMES // 100, "n_samples": 160 * FRAMES,
            "nb_max_frames": FRAMES, "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False}


def sound(seed, name, seconds):
    """A gliding tone that comes and goes over noise, rounded to f16."""
    noise = rng(seed, name)
    t = np.arange(int(16000 * seconds)) / 16000
    tones = sum(np.sin(2 * math.pi * (f * t + g * t * t)) for f, g in noise.uniform(100, 1500, (3, 2)))
    x = 0.2 * tones * np.sin(2 * math.pi * noise.uniform(1, 4) * t) + 0.02 * noise.standard_normal(len(t))
    return x.astype(np.float16)


def log_mel(samples, mels, whole=False):
    """HF's input_features."""
    options = {"padding": "longest", "truncation": False} if whole else {}
    features = feature_extractor(mels)(samples.astype(np.float32), sampling_rate=16000, return_tensors="pt", **options)
    return features.input_features


def small(vocabulary, **options):
    defaults = dict(vocab_size=vocabulary.size, d_model=12, encoder_layers=2, decoder_layers=2,
                    encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=20, decoder_ffn_dim=20,
                    max_source_positions=FRAMES // 2, max_target_positions=POSITIONS, pad_token_id=vocabulary.end,
                    bos_token_id=vocabulary.end, eos_token_id=vocabulary.end,
                    decoder_start_token_id=vocabulary.start, begin_suppress_tokens=[0, vocabulary.end])
    return WhisperConfig(**{**defaults, **options}, attn_implementation="eager")


def make_model(seed, config, vocabulary, multilingual, sine, dtype):
    """Random, but text is likelier than time: a direction that the final norm's bias and the text's rows share."""
    model = randomize(WhisperForConditionalGeneration(config), seed, dtype)
    with torch.no_grad():
        if sine:  # as trained; else random, since the file's numbers count
            positions = model.model.encoder.embed_positions.weight
            positions.copy_(sinusoids(*positions.shape))
        decoder = model.model.decoder
        for layer in decoder.layers:  # what is heard has to matter
            layer.encoder_attn.q_proj.weight *= 3
            layer.encoder_attn.out_proj.weight *= 2
        decoder.layer_norm.bias[0] = 3
        decoder.embed_tokens.weight[: vocabulary.end, 0] = 0.75
        decoder.embed_tokens.weight[vocabulary.end, 0] = 0.6
        decoder.embed_tokens.weight[vocabulary.end] *= 1.5
        decoder.embed_tokens.weight[vocabulary.end + 1:, 0] = 0
        decoder.embed_tokens.weight[vocabulary.first_time:] *= 0.75
    for key, value in vocabulary.generation_config(multilingual).items():
        setattr(model.generation_config, key, value)
    return model


def measured(arguments, answer, options):
    """What a window's thresholds were compared with: HF's numbers, rounded."""
    out = {}
    if options.get("compression_ratio_threshold") is not None:
        out["compression_ratio"] = round(float(LAST["compression_ratio"]), 6)
    if options.get("logprob_threshold") is not None:
        out["avg_logprob"] = round(float(LAST["avg_logprob"]), 6)
        unlikely = LAST["avg_logprob"] < options["logprob_threshold"]
        if options.get("no_speech_threshold") is not None and unlikely:
            detector = next(p for p in arguments["logits_processor"] if isinstance(p, WhisperNoSpeechDetection))
            out["no_speech_prob"] = round(float(detector.no_speech_prob[0]), 6)
            out["skipped"] = bool(answer[2][0])
    return out


LAST = {}  # what HF measured last


def watch(name, function):
    def watched(*arguments):
        LAST[name] = function(*arguments)
        return LAST[name]
    return staticmethod(watched)


for method, key in (("_retrieve_compression_ratio", "compression_ratio"), ("_retrieve_avg_logprobs", "avg_logprob")):
    setattr(WhisperForConditionalGeneration, method, watch(key, getattr(WhisperForConditionalGeneration, method)))


def transcribe(model, vocabulary, name, mel, options):
    """One generate() call: what every window was asked and answered, and HF's final ids and segments."""
    recorder, windows = GapRecorder(), []
    inner = model.generate_with_fallback

    def watched(**arguments):
        asked = {"seek": int(arguments["seek"][0]), "prompt": arguments["decoder_input_ids"][0].tolist()}
        answer = inner(**arguments)
        windows.append({**asked, "ids": answer[0][0].tolist(), **measured(arguments, answer, options)})
        return answer

    arguments = dict(options)
    if "prompt_ids" in arguments:
        arguments["prompt_ids"] = torch.tensor(arguments["prompt_ids"])
    model.generate_with_fallback = watched
    try:
        beams = options.get("num_beams", 1) > 1
        processors = {} if beams else {"logits_processor": LogitsProcessorList([recorder])}
        with torch.no_grad():
            out = model.generate(mel, **arguments, **processors, return_segments=True)
    finally:
        del model.generate_with_fallback
    ids = out["sequences"][0].tolist()
    while ids and ids[-1] == vocabulary.end:  # padding
        ids.pop()
    options = {"temperatures" if k == "temperature" else k: v for k, v in options.items()}  # a list here
    entry = {"name": name, "options": options, "prompt": windows[0]["prompt"], "ids": ids,
             "text": vocabulary.text(ids), "windows": windows}
    if options.get("return_timestamps"):
        entry["segments"] = [{"start": round(float(s["start"]), 6), "end": round(float(s["end"]), 6),
                              "ids": s["tokens"].tolist(), "text": vocabulary.text(s["tokens"].tolist())}
                             for s in out["segments"][0]]
    if not beams:
        entry["gap"] = recorder.gap
        if recorder.gap < MIN_GAP:
            raise Retry(f"{name}: gap {recorder.gap}")
    return entry


def build(seed, config, runs, languages=("en", "de", "fr"), multilingual=True, dtype=torch.float32, seconds=0.8,
          keep_samples=False, sine=False, good=lambda runs: None):
    """keep_samples: the answers are those to the sound, else to its log-mel rounded to f16."""
    vocabulary = Vocabulary(languages)
    model = make_model(seed, config(vocabulary), vocabulary, multilingual, sine, dtype)
    mels = model.config.num_mel_bins
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype).float())
    samples = sound(seed, "samples", seconds)
    long = seconds * 100 > FRAMES
    mel = log_mel(samples, mels, whole=long)
    mel = mel if keep_samples else mel.half().float()
    heard = [mel, *(mel + normal(seed, f"mel {i}", mel.shape, 1e-4) for i in range(4))] if keep_samples else [mel]

    def answers(mel=mel):
        made = [transcribe(model, vocabulary, name, mel, options) for name, options in runs(vocabulary)]
        if multilingual:
            made.append(int(model.detect_language(mel, num_segment_frames=FRAMES)[0]))
        return made

    generate = answers()
    language = generate.pop() if multilingual else None
    good(generate)
    if len({str(g["ids"]) for g in generate}) < len(generate):
        raise Retry("two runs give the same ids")
    other = log_mel(sound(seed + 1, "samples", seconds), mels, whole=long)
    if answers(other)[0]["ids"] == generate[0]["ids"]:
        raise Retry("another sound gives the same ids")
    if any(strip_floats(answers(m)) != strip_floats(answers()) for m in heard[1:]):
        raise Retry("answers change with the last digits of the log-mel")
    demand_varied(generate[0]["ids"], 5)
    demand_stable(model, answers, seed)

    made = Checkpoint("whisper").add_model(model, dtype)
    made.files["generation_config.json"] = vocabulary.generation_config(multilingual)
    made.files["preprocessor_config.json"] = preprocessor(mels)
    made.files["tokenizer.json"] = to_json(vocabulary.tokenizer)
    made.notes["ids"] = "as HF returns them: without prompt and end token, timestamps kept"
    if language is not None:
        made.notes["language"] = {"id": language, "token": vocabulary.tokenizer.id_to_token(language)}
    made.notes["generate"] = generate
    if not long:
        made.add_golden({**stages(model, mel, vocabulary, seed), "mel": mel[0] if keep_samples else mel[0].half()})
    return made.add_golden({"samples": torch.from_numpy(samples)} if keep_samples else {})


def stages(model, mel, vocabulary, seed):
    ids = torch.tensor([[vocabulary.start] + integers(seed, "input_ids", vocabulary.size, 6)])
    encoder, decoder = model.model.encoder, model.model.decoder
    with torch.no_grad(), hidden_states(encoder.layers, encoder.layer_norm, "audio.") as heard, \
            hidden_states(decoder.layers, decoder.layer_norm, "decoder.") as said:
        logits = model(mel, decoder_input_ids=ids).logits[0]
    return {"input_ids": ids[0], **heard, **said, "logits": logits}


def demand_segments(names, least):
    """Of a timestamped run: text within, more than one segment, times that differ. And ends of all kinds over all."""
    def check(runs):
        full = [len(w["prompt"]) + len(w["ids"]) == POSITIONS for r in runs for w in r["windows"]
                if "max_new_tokens" not in r["options"]]
        if all(full) or not any(full):
            raise Retry("some windows are to end by themselves, some by length")
        for run in runs:
            if run["name"] in names:
                texts = [s for s in run["segments"] if s["text"].strip()]
                if len(texts) < least or not all(s["end"] > s["start"] for s in texts):
                    raise Retry(f"{run['name']}: dull segments {run['ids']}")
    return check


def multilingual_runs(vocabulary):
    yield "language detected", {}
    yield "German", {"language": "de", "task": "transcribe"}
    yield "French to English", {"language": "french", "task": "translate"}
    yield "timestamps", {"language": "en", "return_timestamps": True}
    yield "beams", {"language": "en", "num_beams": 3, "max_new_tokens": 12}
    yield "beams, timestamps", {"language": "de", "num_beams": 4, "return_timestamps": True, "max_new_tokens": 14}
    prompt = [vocabulary.id["<|startofprev|>"], 3, 40, 51, 22]
    yield "prompted", {"language": "en", "prompt_ids": prompt, "max_new_tokens": 10}


@case("whisper-multilingual", "80 mels, 3 heads, 3 languages; detection, tasks, timestamps, beams, a text prompt")
def whisper_multilingual(seed):
    return build(seed, small, multilingual_runs, good=demand_segments(["timestamps"], 2))


def english_runs(vocabulary):
    yield "plain", {}
    yield "timestamps", {"return_timestamps": True}
    yield "beams", {"num_beams": 3, "max_new_tokens": 12}


@case("whisper-english", "English only: forced_decoder_ids, no languages; relu, 2 heads, 1 + 3 layers, f16, sinusoids")
def whisper_english(seed):
    def config(vocabulary):
        return small(vocabulary, encoder_layers=1, decoder_layers=3, encoder_attention_heads=2,
                     decoder_attention_heads=4, activation_function="relu", encoder_ffn_dim=16)
    return build(seed, config, english_runs, multilingual=False, dtype=torch.float16, seconds=0.4,
                 keep_samples=True, sine=True, good=demand_segments(["timestamps"], 1))


def large_runs(vocabulary):
    yield "language detected", {}
    yield "Cantonese, timestamps", {"language": "yue", "return_timestamps": True}
    yield "beams", {"language": "en", "num_beams": 2, "length_penalty": 0.5, "max_new_tokens": 12}


@case("whisper-128-mels", "as large-v3-turbo: 128 mels, one more language, 3 encoder layers and 1 decoder layer; f16")
def whisper_large(seed):
    def config(vocabulary):
        return small(vocabulary, num_mel_bins=128, d_model=10, encoder_layers=3, decoder_layers=1,
                     encoder_attention_heads=5, decoder_attention_heads=2)
    return build(seed, config, large_runs, languages=("en", "de", "fr", "yue"), dtype=torch.float16)


def long_runs(vocabulary):
    yield "windows", {"language": "en", "return_timestamps": True}
    yield "windows, conditioned", {"language": "en", "return_timestamps": True, "condition_on_prev_tokens": True}
    yield "windows, language detected", {"return_timestamps": True}


@case("whisper-long", "2.3 s of sound in windows of 1 s: seeks by timestamps, segments; f16")
def whisper_long(seed):
    return build(seed, small, long_runs, dtype=torch.float16, seconds=2.3, keep_samples=True,
                 good=demand_segments(["windows"], 4))


NO_SPEECH = 0.0018  # between the windows of the case below


def fallback_runs(vocabulary):
    windows = {"language": "en", "return_timestamps": True, "temperature": [0.0]}
    thresholds = {"compression_ratio_threshold": 1.35, "logprob_threshold": -1.0}
    yield "thresholds", {**windows, **thresholds}
    yield "thresholds, beams", {**windows, **thresholds, "num_beams": 3, "max_new_tokens": 14}
    yield "silence", {**windows, **thresholds, "no_speech_threshold": NO_SPEECH}
    yield "silence, conditioned", {**windows, **thresholds, "no_speech_threshold": NO_SPEECH,
                                   "condition_on_prev_tokens": True}
    prompt = [vocabulary.id["<|startofprev|>"], *range(31, 61)]  # longer than half the positions
    yield "long prompt", {"language": "de", "return_timestamps": True, "prompt_ids": prompt}
    yield "long prompt, conditioned", {"language": "de", "return_timestamps": True, "prompt_ids": prompt,
                                       "condition_on_prev_tokens": True}


def demand_silence(runs):
    """Some windows are taken for silence, some not, and none is close to it."""
    for run in runs:
        if run["name"] == "silence":
            windows = [w for w in run["windows"] if "no_speech_prob" in w]
            skipped = [w["skipped"] for w in windows]
            if all(skipped) or not any(skipped):
                raise Retry(f"no speech: {[w['no_speech_prob'] for w in windows]}")
            if any(abs(w["no_speech_prob"] / NO_SPEECH - 1) < 0.05 for w in windows):
                raise Retry("no speech: too close")


@case("whisper-fallback", "thresholds of compression, likelihood and silence; prompts longer than half the positions; f16")
def whisper_fallback(seed):
    return build(seed, small, fallback_runs, dtype=torch.float16, seconds=2.3, keep_samples=True, good=demand_silence)
