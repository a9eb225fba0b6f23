#!/usr/bin/env python3
"""Assembles the default model: one checkpoint of the tessera family (docs/tessera-format.md) from first light's
decoder and projector, ViT-Ti's tower, and Whisper tiny.en's encoder, token embedding and tokenizer. Needs NumPy only.

    assemble_default.py OUT [--dtype int8|f16|f32] [--models DIR]
"""
import argparse
import json
import math
import os
import shutil
import struct

import numpy as np

from int8_rows import quantize

HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8}
END, START, CAPTION, NO_TIMESTAMPS = 50256, 50257, 50358, 50362
CAPTION_TOKENS, SPEECH_TOKENS = 24, 200  # first light's own limits


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    end = 8 + struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data, TYPES[t["dtype"]], math.prod(t["shape"]), end + t["data_offsets"][0])
            .reshape(t["shape"]) for name, t in header.items()}


def write_safetensors(path, tensors):
    """Wide types first, so that all are aligned; by name within a type."""
    spelling = {np.dtype(v): k for k, v in TYPES.items()}
    names = sorted(tensors, key=lambda n: (-tensors[n].itemsize, n))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        t = tensors[name]
        header[name] = {"dtype": spelling[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            f.write(np.ascontiguousarray(tensors[name]).tobytes())


def read_json(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as f:
        return json.load(f)


def write_json(path, value, indent=1):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=indent)
        f.write("\n")


def gather(first_light, vit, whisper):
    """All tensors under the family's names, as f32."""
    ours = read_safetensors(os.path.join(first_light, "model.safetensors"))
    towers = read_safetensors(os.path.join(vit, "model.safetensors"))
    speech = read_safetensors(os.path.join(whisper, "model.safetensors"))
    tensors = {"vision_tower." + n.removeprefix("vit."): t for n, t in towers.items() if n.startswith("vit.")}
    encoder = "model.encoder."
    tensors.update({"audio_tower." + n.removeprefix(encoder): t for n, t in speech.items() if n.startswith(encoder)})
    tensors.update(ours)
    embedding = speech["model.decoder.embed_tokens.weight"].copy()
    embedding[CAPTION] = tensors.pop("decoder.caption_token")  # ids from START on are never produced: input only
    tensors["decoder.embed_tokens.weight"] = embedding
    return {n: t.astype(np.float32) for n, t in tensors.items()}


def config(vit, whisper):
    vision, speech = read_json(vit, "config.json"), read_json(whisper, "config.json")
    for key in ("id2label", "label2id", "architectures", "torch_dtype"):
        vision.pop(key, None)
    for key in ("architectures", "torch_dtype", "forced_decoder_ids", "begin_suppress_tokens"):
        speech.pop(key, None)
    return {
        "architectures": ["Tessera"], "model_type": "tessera", "tessera_version": 1, "consume": "memory",
        "vision_config": vision, "audio_config": speech, "text_config": speech,
        "vision_projector": {"type": "mlp", "hidden_size": 768, "activation": "gelu", "norm": True, "norm_eps": 1e-5,
                             "position_embedding": True, "drop_class_token": False, "reduce": "none", "factor": 1},
        "audio_projector": {"type": "none"},
        "bos_token_id": START, "eos_token_id": END, "pad_token_id": END,
        "tasks": {
            "caption": {"start": [START, CAPTION], "generation": {"max_new_tokens": CAPTION_TOKENS, "num_beams": 4}},
            "transcribe": {"start": [START, NO_TIMESTAMPS]},
            "prompt": {"start": [START, CAPTION]}}}


def generation_config(vocabulary):
    return {"bos_token_id": START, "decoder_start_token_id": START, "eos_token_id": END, "pad_token_id": END,
            "max_new_tokens": SPEECH_TOKENS, "num_beams": 1, "length_penalty": 1.0,
            "suppress_tokens": list(range(START, vocabulary))}


def model_card(dtype):
    with open(os.path.join(HERE, "default_model_card.md"), encoding="utf-8") as f:
        card = f.read()
    rounded = "2-D weights int8 with one scale per output row (compressed-tensors, int-quantized), all else f16"
    return card.replace("{weights}", rounded if dtype == "int8" else dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--dtype", choices=["int8", "f16", "f32"], default="int8")
    parser.add_argument("--models", default=os.path.join(HERE, "../../shared/models"),
                        help="folder with first-light, vit-tiny-patch16-224 and whisper-tiny.en")
    arguments = parser.parse_args()
    first_light, vit, whisper = (os.path.join(arguments.models, n)
                                 for n in ("first-light", "vit-tiny-patch16-224", "whisper-tiny.en"))
    tensors, settings = gather(first_light, vit, whisper), config(vit, whisper)
    if arguments.dtype == "int8":
        tensors, _, settings["quantization_config"] = quantize(tensors)
    elif arguments.dtype == "f16":
        tensors = {n: t.astype(np.float16) for n, t in tensors.items()}

    out = arguments.out
    os.makedirs(out, exist_ok=True)
    write_safetensors(os.path.join(out, "model.safetensors"), tensors)
    write_json(os.path.join(out, "config.json"), settings)
    vocabulary = settings["text_config"]["vocab_size"]
    write_json(os.path.join(out, "generation_config.json"), generation_config(vocabulary), indent=None)
    write_json(os.path.join(out, "preprocessor_config.json"),
               {"image_processor": read_json(vit, "preprocessor_config.json"),
                "feature_extractor": read_json(whisper, "preprocessor_config.json")})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(os.path.join(whisper, file), os.path.join(out, file))
    with open(os.path.join(out, "README.md"), "w", encoding="utf-8") as f:
        f.write(model_card(arguments.dtype))
    size = sum(e.stat().st_size for e in os.scandir(out))
    parameters = sum(t.size for n, t in tensors.items() if not n.endswith("_scale"))
    print(f"{out}: {size / 1e6:.1f} MB, {parameters:,} parameters")


if __name__ == "__main__":
    main()
