"""faster-whisper (CTranslate2): its encoder, on checkpoints in CTranslate2's layout; as a program: file to text.

    peer_faster_whisper.py MODEL SOUND BEAMS THREADS [int8] [batched]
"""
import sys

import ctranslate2
import faster_whisper
import numpy as np

VERSION = f"faster-whisper {faster_whisper.__version__} (CTranslate2 {ctranslate2.__version__})"


def prepare(work, arguments):
    kind = {"f32": "float32"}.get(arguments.format, arguments.format)
    model = ctranslate2.models.Whisper(arguments.checkpoint, device="cpu", compute_type=kind,
                                       intra_threads=arguments.threads)
    mel = np.random.default_rng(0).random((1, 80, 3000), np.float32)
    return VERSION, lambda: (model.encode(ctranslate2.StorageView.from_array(mel)), None)[1]


def main():
    path, sound, beams, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    model = faster_whisper.WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=threads)
    if "batched" in sys.argv[5:]:
        segments, _ = faster_whisper.BatchedInferencePipeline(model).transcribe(sound, beam_size=beams, language="en", batch_size=8)
    else:
        segments, _ = model.transcribe(sound, beam_size=beams, language="en")
    print(" ".join(segment.text.strip() for segment in segments))


if __name__ == "__main__":
    main()
