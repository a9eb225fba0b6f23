#!/usr/bin/env python3
"""How a default model (tools/assemble_default.py) answers beside first light's expected.json, by PyTorch.

    check_default.py MODEL_DIR [--shared DIR]     greedy, limits as in first light's reference.py
"""
import argparse
import collections
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from reference.common import torch  # noqa: E402
from reference.tessera import from_checkpoint  # noqa: E402

import librosa  # noqa: E402
from PIL import Image  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import WhisperFeatureExtractor  # noqa: E402
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

LIMITS = {"caption": 24, "transcribe": 200}


class Reader:
    def __init__(self, folder):
        def read(name):
            with open(f"{folder}/{name}.json") as f:
                return json.load(f)
        self.config, self.generation = read("config"), read("generation_config")
        preprocessing = read("preprocessor_config")
        self.model = from_checkpoint(folder)
        self.words = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.see = ViTImageProcessorPil(**preprocessing["image_processor"])
        self.hear = WhisperFeatureExtractor(**preprocessing["feature_extractor"])

    def rows(self, path):
        if path.endswith(".jpg"):
            pixels = self.see(Image.open(path).convert("RGB"), return_tensors="pt").pixel_values[0]
            return self.model.see(pixels)[1]
        sound = librosa.load(path, sr=16000)[0]
        return self.model.hear(self.hear(sound, sampling_rate=16000, return_tensors="pt").input_features[0])[1]

    def answer(self, paths, task, begin):
        begin = self.words.encode(begin, add_special_tokens=False).ids
        ids = torch.tensor([self.config["tasks"][task]["start"] + begin])
        inputs, _ = self.model.inputs(ids, torch.cat([self.rows(p) for p in paths])[None])
        end = self.config["eos_token_id"]
        out = self.model.generate(**inputs, max_new_tokens=LIMITS[task], do_sample=False, num_beams=1, eos_token_id=end,
                                  pad_token_id=end, suppress_tokens=self.generation["suppress_tokens"],
                                  begin_suppress_tokens=None)
        said = out[0, ids.shape[1]:].tolist()
        return said[:-1] if said[-1] == end else said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--shared", default=os.path.join(HERE, "../../../shared"))
    arguments = parser.parse_args()
    with open(f"{arguments.shared}/models/first-light/expected.json") as f:
        expected = json.load(f)
    reader, counts = Reader(arguments.model), collections.Counter()
    for entry in expected:
        task, begin = entry["task"], ""
        if task.startswith("continue"):
            task, begin = "caption", task.split('"')[1]
        with torch.inference_mode():
            ids = reader.answer([f"{arguments.shared}/{p}" for p in entry["files"]], task, begin)
        kind = entry["task"] + (" (photo and sound)" if len(entry["files"]) > 1 else "")
        counts[kind, ids == entry["ids"]] += 1
        if ids != entry["ids"]:
            print(f"{kind}: {entry['files']}\n  expected {entry['text']}")
            print(f"  found    {reader.words.decode(ids).strip()}")
    for kind in sorted({k for k, _ in counts}):
        print(f"{kind}: {counts[kind, True]} same, {counts[kind, False]} changed")


if __name__ == "__main__":
    main()
