"""whisper.cpp through pywhispercpp: its encoder on files made by to_ggml.py; as a program: file to text.

    peer_whisper_cpp.py MODEL.bin SOUND BEAMS THREADS
"""
import importlib.metadata
import sys

import _pywhispercpp as whisper
import numpy as np

VERSION = f"whisper.cpp (pywhispercpp {importlib.metadata.version('pywhispercpp')})"


def prepare(work, arguments):
    options = whisper.whisper_context_default_params()
    options.use_gpu, options.flash_attn = False, True
    context = whisper.whisper_init_from_file_with_params(arguments.checkpoint, options)
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 480000).astype(np.float32)
    whisper.whisper_pcm_to_mel(context, sound, len(sound), arguments.threads)

    def encode():
        if whisper.whisper_encode(context, 0, arguments.threads) != 0:
            raise RuntimeError("whisper_encode failed")
    return VERSION, encode


def main():
    import soundfile
    from pywhispercpp.model import Model
    model_path, sound, beams, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    samples, rate = soundfile.read(sound, dtype="float32")
    assert rate == 16000 and samples.ndim == 1
    search = {"beam_search": {"beam_size": beams, "patience": -1.0}} if beams > 1 else {"greedy": {"best_of": 1}}
    model = Model(model_path, params_sampling_strategy=int(beams > 1), n_threads=threads, print_progress=False,
                  print_realtime=False, **search)
    print(" ".join(segment.text.strip() for segment in model.transcribe(samples)))


if __name__ == "__main__":
    main()
