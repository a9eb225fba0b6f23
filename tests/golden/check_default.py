#!/usr/bin/env python3
"""What a tessera checkpoint answers by PyTorch, greedy, to be held beside `tessera caption --num-beams 1 --dtype f32`
and `tessera transcribe --dtype f32`.

    check_default.py MODEL_DIR FILE...     a line for each photo or recording; PHOTO+RECORDING captions with both in the prompt,
                                           with --task transcribe writes down
"""
import argparse
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

SOUNDS = (".mp3", ".wav", ".flac")
LIMITS = {"caption": 24, "transcribe": 200}


class Reader:
    def __init__(self, folder):
        def read(name):
            with open(f"{folder}/{name}.json") as f:
                return json.load(f)
        self.config, self.generation = read("config"), read("generation_config")
        preprocessing = read("preprocessor_config")
        self.models = {task: from_checkpoint(folder, task) for task in ("caption", "transcribe")}
        self.words = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.see = ViTImageProcessorPil(**preprocessing["image_processor"])
        self.hear = WhisperFeatureExtractor(**preprocessing["feature_extractor"])

    def attended(self, path, task):
        heard = self.config["tasks"][task].get("attends_to", ["image", "audio"])
        return [part for part in path.split("+") if ("audio" if part.endswith(SOUNDS) else "image") in heard]

    def rows(self, model, path):
        if path.endswith(SOUNDS):
            sound = librosa.load(path, sr=16000)[0]
            return model.hear(self.hear(sound, sampling_rate=16000, return_tensors="pt").input_features[0])[1]
        pixels = self.see(Image.open(path).convert("RGB"), return_tensors="pt").pixel_values[0]
        return model.see(pixels)[1]

    def silent(self, model, ids, rows, threshold):
        token = self.words.token_to_id("<|nospeech|>") or self.words.token_to_id("<|nocaptions|>")
        return model.logits(ids[:, :1], rows)[0, -1].softmax(-1)[token] > threshold

    def answer(self, path, task):
        task = task or ("transcribe" if path.endswith(SOUNDS) and "+" not in path else "caption")
        model = self.models[task]
        ids = torch.tensor([self.config["tasks"][task]["start"]])
        rows = torch.cat([self.rows(model, part) for part in self.attended(path, task)])[None]
        generation = self.config["tasks"][task].get("generation", {})
        if self.silent(model, ids, rows, generation.get("no_speech_threshold", 1)):
            return ""
        inputs, _ = model.inputs(ids, rows)
        end = self.config["eos_token_id"]
        beams = generation.get("num_beams", 1)
        out = model.generate(**inputs, max_new_tokens=LIMITS[task], do_sample=False, num_beams=beams, eos_token_id=end,
                             pad_token_id=end, suppress_tokens=self.generation["suppress_tokens"],
                             begin_suppress_tokens=None)
        return self.words.decode(out[0, ids.shape[1]:].tolist(), skip_special_tokens=True).strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", choices=sorted(LIMITS), help="default: by what the file is")
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    reader = Reader(arguments.model)
    for path in arguments.files:
        with torch.inference_mode():
            print(reader.answer(path, arguments.task))


if __name__ == "__main__":
    main()
