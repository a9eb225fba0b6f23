#!/usr/bin/env python3
"""What HF transformers says on real input, for the tests named Real (tests/data/real/*.json).

    make_real.py [--shared DIR] [whisper] [vit] [stories]        (ffmpeg, librosa, torch, transformers; ten minutes on one core)
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../../tools")]
sys.dont_write_bytecode = True

from reference.common import GapRecorder, torch, write_json  # noqa: E402

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import (LogitsProcessorList, ViTForImageClassification, WhisperFeatureExtractor,  # noqa: E402
                          WhisperForConditionalGeneration)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

OUT = os.path.normpath(os.path.join(HERE, "../data/real"))
UTTERANCES, TIMED, PHOTOS = 40, 8, 50


def decode(path):
    """16 kHz mono by ffmpeg."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)


class Whisper:
    def __init__(self, folder):
        self.model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.features = WhisperFeatureExtractor.from_pretrained(folder)
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.first_special = self.model.generation_config.eos_token_id

    def text(self, ids):
        return self.tokenizer.decode([i for i in ids if i < self.first_special])

    def run(self, samples, timestamps=False, whole=False):
        options = {"padding": "longest", "truncation": False} if whole else {}
        mel = self.features(samples, sampling_rate=16000, return_tensors="pt", **options).input_features
        with torch.inference_mode():
            out = self.model.generate(mel, return_timestamps=timestamps, return_segments=True)
        ids = [i for i in out["sequences"][0].tolist() if i != self.first_special]
        segments = [{"start": round(float(s["start"]), 2), "end": round(float(s["end"]), 2),
                     "text": self.text(s["tokens"].tolist())} for s in out["segments"][0]]
        return ids, segments


def utterances(shared):
    """Paths below shared, by turns from every speaker, shorter than a window."""
    root = os.path.join(shared, "data/librispeech")
    speakers = sorted((s for s in os.listdir(root) if s.isdigit()), key=int)
    files = {s: sorted(f for f in os.listdir(f"{root}/{s}") if f.endswith(".mp3")) for s in speakers}
    for turn in range(100):
        for speaker in speakers:
            name = files[speaker][turn * 17 % len(files[speaker])]
            yield f"data/librispeech/{speaker}/{name}"


def make_whisper(shared):
    import librosa

    whisper, entries, passed_over = Whisper(f"{shared}/models/whisper-tiny.en"), [], []
    for path in utterances(shared):
        if len(entries) == UTTERANCES:
            break
        samples = decode(f"{shared}/{path}")
        if len(samples) > 30 * 16000 or any(e["file"] == path for e in entries):
            continue
        ids, _ = whisper.run(samples)
        if whisper.run(librosa.load(f"{shared}/{path}", sr=16000)[0])[0] != ids:
            passed_over.append(path)  # two decoders of the file, two texts: too close to call
            continue
        entry = {"file": path, "text": whisper.text(ids), "ids": ids}
        if len(entries) < TIMED:
            entry["timestamped_ids"], entry["segments"] = whisper.run(samples, timestamps=True)
        entries.append(entry)
        print(path, entry["text"], flush=True)
    parts = [e["file"] for e in entries[:8]]
    ids, segments = whisper.run(np.concatenate([decode(f"{shared}/{p}") for p in parts]), timestamps=True, whole=True)
    write_json(f"{OUT}/whisper_tiny_en.json", {
        "about": "HF transformers, whisper-tiny.en in f32, greedy by its generation_config.json; sound by ffmpeg",
        "passed_over": passed_over, "utterances": entries,
        "long": {"about": "the files' samples one after the other, log-mel of the whole, HF's sequential windows",
                 "files": parts, "text": whisper.text(ids), "segments": segments}})


def make_vit(shared):
    folder, root = f"{shared}/models/vit-tiny-patch16-224", "data/flickr8k/images"
    model = ViTForImageClassification.from_pretrained(folder).eval()
    processor = ViTImageProcessorPil.from_pretrained(folder)
    names = sorted(n for n in os.listdir(f"{shared}/{root}") if n.endswith(".jpg"))
    entries = []
    for name in names[:: len(names) // PHOTOS][:PHOTOS]:
        pixels = processor(Image.open(f"{shared}/{root}/{name}").convert("RGB"), return_tensors="pt").pixel_values
        with torch.inference_mode():
            scores, ids = model(pixels).logits[0].softmax(-1).topk(5)
        entries.append({"file": f"{root}/{name}",
                        "labels": [{"label": model.config.id2label[int(i)], "score": round(float(s), 7)}
                                   for i, s in zip(ids, scores)]})
    write_json(f"{OUT}/vit_tiny.json", {
        "about": "HF transformers, vit-tiny-patch16-224 in f32, Pillow preprocessing, five best classes of 1000",
        "photos": entries})


STARTS = ["Once upon a time", "Lily and Tom went to the park.", "The dog", " a big tree ", "One day, Zoë's 3 cats\nran 🐈"]


def make_stories(shared):
    """stories260K, greedy; what describes it (config.json, tokenizer.json, ...) is committed, the weights are not."""
    from convert_llama2c import convert
    from transformers import LlamaForCausalLM

    kept, source = f"{OUT}/stories260K", f"{shared}/data/stories260K"
    with tempfile.TemporaryDirectory() as folder:
        convert(f"{source}/stories260K.bin", f"{source}/tok512.bin", folder)
        model, words = LlamaForCausalLM.from_pretrained(folder).eval(), Tokenizer.from_file(f"{folder}/tokenizer.json")
        entries = []
        for text in STARTS:
            prompt = words.encode(text).ids
            recorder = GapRecorder()
            with torch.inference_mode():
                out = model.generate(torch.tensor([prompt]), max_new_tokens=120, do_sample=False, pad_token_id=2,
                                     logits_processor=LogitsProcessorList([recorder]))
            ids = out[0, len(prompt):].tolist()
            entries.append({"text": text, "prompt": prompt, "ids": ids, "gap": recorder.gap,
                            "continuation": words.decode(prompt + ids)[len(words.decode(prompt)):]})
        os.makedirs(kept, exist_ok=True)
        for file in ("config.json", "generation_config.json", "tokenizer.json"):
            shutil.copyfile(f"{folder}/{file}", f"{kept}/{file}")
    write_json(f"{OUT}/stories260K.json", {"about": "HF transformers, stories260K in f32, greedy, 120 tokens at most",
                                           "prompts": entries})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["whisper", "vit", "stories"])
    parser.add_argument("--shared", default=os.path.join(HERE, "../../../shared"))
    arguments = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    if "vit" in arguments.what:
        make_vit(arguments.shared)
    if "stories" in arguments.what:
        make_stories(arguments.shared)
    if "whisper" in arguments.what:
        make_whisper(arguments.shared)


if __name__ == "__main__":
    main()
