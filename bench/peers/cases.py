"""What is compared: the work, on which weights, who takes part in which number formats, and the bar. Where a checkpoint has to be
converted first, the result is kept under CACHE."""
import os
import subprocess
import sys
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Case:
    name: str
    work: str  # as `tessera bench` names it; "transcribe": a process from file to text
    checkpoint: str
    bar: str
    peers: list = field(default_factory=list)  # (peer, format)
    beams: int = 1


TOWER = [("pytorch", "f32"), ("pytorch", "bf16"), ("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", "f32"), ("onnxruntime", "int8")]
SOUND = TOWER + [("whisper_cpp", "f16"), ("faster_whisper", "f32"), ("faster_whisper", "int8")]
TEXT = [("pytorch", "f32"), ("pytorch", "bf16")] + [("llama_cpp", f) for f in ("f32", "f16", "bf16", "q8_0", "q4_0")]
ENCODER_BAR = "AVX-512: 2.5 x the best peer; AVX2: f32 1.15 x PyTorch, int8 1.7 x"
VISION_BAR = "AVX-512: 2 x the best peer; AVX2: 1.6 x (int8)"
CASES = [
    *(Case(f"Whisper {size}, encode 30 s", "encode sound", f"whisper-{size}", ENCODER_BAR, SOUND)
      for size in ("tiny.en", "base", "small")),
    Case("ViT-B/16-224, one image", "encode image", "vit-b16-224", VISION_BAR, TOWER),
    Case("SigLIP-B/16-512, one image", "encode image", "siglip-b16-512", VISION_BAR, TOWER),
    *(Case(f"{name}, prefill 512", "prefill", shape, "1.5 x the best peer of the same type", TEXT)
      for name, shape in (("GPT-2", "gpt2"), ("SmolLM2-135M", "smollm2-135m"), ("Llama-3.2-1B", "llama-3.2-1b"))),
    *(Case(f"{name}, decode", "decode", shape, bar, TEXT)
      for name, shape, bar in (("GPT-2", "gpt2", "1.3 x llama.cpp"), ("SmolLM2-135M", "smollm2-135m", "1.3 x llama.cpp"),
                               ("Llama-3.2-1B", "llama-3.2-1b", "85 % of memory bandwidth"))),
    *(Case(f"593 s of speech, tiny.en, {name}", "transcribe", "whisper-tiny.en", "3 x the fastest peer",
           [("faster_whisper", "int8"), ("faster_whisper", "int8 batched"), ("whisper_cpp", "f16"),
            ("openvino_genai", "f32"), ("openvino_genai", "bf16")], beams)
      for name, beams in (("greedy", 1), ("beam 5", 5))),
]


def convert(case, peer, form, checkpoint, cache):
    """The path a peer opens; made from the checkpoint where it takes another layout."""
    kind = form.split()[0]
    script = {"whisper_cpp": "to_ggml.py", "llama_cpp": "to_gguf.py"}.get(peer)
    if script:
        target = os.path.join(cache, f"{case.checkpoint}.{kind}.{'bin' if peer == 'whisper_cpp' else 'gguf'}")
        command = [sys.executable, os.path.join(HERE, script), checkpoint, target] + ([kind] if peer == "llama_cpp" else [])
    elif peer == "faster_whisper":
        target = os.path.join(cache, f"{case.checkpoint}.ct2")
        command = [sys.executable, "-c", "from ctranslate2.converters.transformers import main; main()", "--model", checkpoint,
                   "--output_dir", target, "--copy_files", "tokenizer.json", "preprocessor_config.json"]
    elif peer == "openvino_genai":  # optimum-intel may want another environment, for it takes older versions of transformers
        target = os.path.join(cache, f"{case.checkpoint}.ov")
        command = [os.environ.get("OPTIMUM_CLI", os.path.join(os.path.dirname(sys.executable), "optimum-cli")), "export", "openvino",
                   "--model", checkpoint, "--task", "automatic-speech-recognition-with-past", "--weight-format", "fp16", target]
    else:
        return checkpoint
    if not os.path.exists(target):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(made.stderr.strip().splitlines()[-1])
    return target
