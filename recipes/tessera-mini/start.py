#!/usr/bin/env python3
"""Where the training of tessera-mini starts: one checkpoint of the tessera family (docs/tessera-format.md), f32, of
ViT-Ti's tower, Whisper tiny.en as it is (encoder, decoder, tokenizer), first light's image projector, and what first
light's decoder learnt as an adapter for captions and prompts: low-rank for matrices (the largest singular values of the
difference), as it is for biases, norms and positions. Needs NumPy only.

    start.py OUT [--rank 64] [--models DIR]
"""
import argparse
import json
import math
import os
import shutil
import struct

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8}
END, START, CAPTION, NO_TIMESTAMPS = 50256, 50257, 50358, 50362
CAPTION_TOKENS, SPEECH_TOKENS = 24, 200
ADAPTER = "adapters.caption."


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


def low_rank(difference, rank):
    """The best B A of that rank (Eckart and Young 1936), their sizes alike."""
    u, sizes, v = np.linalg.svd(difference, full_matrices=False)
    root = np.sqrt(sizes[:rank])
    return {"lora_A.weight": root[:, None] * v[:rank], "lora_B.weight": u[:, :rank] * root}


def adapter(taught, plain, rank):
    """What makes of the untouched decoder the taught one, nearly."""
    tensors = {}
    for name, t in taught.items():
        if t.ndim == 2 and not name.endswith("embed_positions.weight"):
            layer = name.removesuffix("weight")
            tensors.update({layer + n: m for n, m in low_rank(t - plain[name], rank).items()})
        else:
            tensors[name] = t
    return {ADAPTER + n: t.astype(np.float32) for n, t in tensors.items()}


def gather(first_light, vit, whisper, rank):
    """All tensors under the family's names, as f32."""
    ours, towers, speech = ({n: t.astype(np.float32) for n, t in
                             read_safetensors(os.path.join(p, "model.safetensors")).items()}
                            for p in (first_light, vit, whisper))
    tensors = {"vision_tower." + n.removeprefix("vit."): t for n, t in towers.items() if n.startswith("vit.")}
    for ours_name, theirs in (("audio_tower.", "model.encoder."), ("decoder.", "model.decoder.")):
        tensors.update({ours_name + n.removeprefix(theirs): t for n, t in speech.items() if n.startswith(theirs)})
    embedding = tensors["decoder.embed_tokens.weight"]
    embedding[CAPTION] = ours.pop("decoder.caption_token")  # ids from START on are never produced: input only
    tensors.update({n: t for n, t in ours.items() if n.startswith("vision_projector.")})
    taught = {n.removeprefix("decoder."): t for n, t in ours.items() if n.startswith("decoder.")}
    plain = {n.removeprefix("decoder."): t for n, t in tensors.items() if n.startswith("decoder.")}
    tensors.update(adapter(taught, plain, rank))
    tensors[ADAPTER + "audio_embedding"] = np.zeros((1, embedding.shape[1]), np.float32)
    return tensors


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
            "caption": {"start": [START, CAPTION], "adapter": "caption",
                        "generation": {"max_new_tokens": CAPTION_TOKENS}},
            "transcribe": {"start": [START, NO_TIMESTAMPS], "attends_to": ["audio"],
                           "generation": {"num_beams": 2, "no_speech_threshold": 0.6}},
            "prompt": {"start": [START, CAPTION], "adapter": "caption"}}}


def generation_config(vocabulary):
    return {"bos_token_id": START, "decoder_start_token_id": START, "eos_token_id": END, "pad_token_id": END,
            "max_new_tokens": SPEECH_TOKENS, "num_beams": 1, "length_penalty": 1.0,
            "suppress_tokens": list(range(START, vocabulary))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--models", default=os.path.join(HERE, "../../../shared/models"),
                        help="folder with first-light, vit-tiny-patch16-224 and whisper-tiny.en")
    arguments = parser.parse_args()
    first_light, vit, whisper = (os.path.join(arguments.models, n)
                                 for n in ("first-light", "vit-tiny-patch16-224", "whisper-tiny.en"))
    tensors, settings = gather(first_light, vit, whisper, arguments.rank), config(vit, whisper)
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
    size = sum(e.stat().st_size for e in os.scandir(out))
    parameters = sum(t.size for n, t in tensors.items() if not n.endswith("_scale"))
    print(f"{out}: {size / 1e6:.1f} MB, {parameters:,} parameters")


if __name__ == "__main__":
    main()
