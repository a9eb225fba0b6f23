#!/usr/bin/env python3
"""Makes tests/data/log_mel/expected.safetensors: log-mel spectrograms of HF's WhisperFeatureExtractor (its numpy path).

    make_log_mel.py          (needs transformers, numpy, safetensors; ffmpeg and ../shared, or TESSERA_SHARED, for the real recording)

The signals are made of integers, so that the C++ test makes the same ones to the bit (see signals() here and there).
Of each spectrogram [frames, mels] these are kept: its shape (NAME.shape), the first and last four and every 307th
frame (NAME.frames), and the mean (NAME.mean). NAME is signal.window.MELS or signal.whole.MELS. filters.MELS.index and
.values are what is not zero of the mel filter matrix [bins, mels].
"""
import os, pathlib, subprocess
import numpy as np
from safetensors.numpy import save_file
from transformers import WhisperFeatureExtractor

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RATE = 16000


def noise(count, scale):
    state, out = 1, np.empty(count, np.int64)
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        out[i] = state
    return ((out >> 8) - 2**23).astype(np.float32) * np.float32(scale / 2**23)


def signals():
    k = np.arange(30 * RATE, dtype=np.int64)
    impulses = np.zeros(30 * RATE, np.float32)
    impulses[[0, 5, 1000, 30 * RATE - 1]] = 1
    return {
        "noise": noise(31 * RATE, 1),
        "loud": noise(3 * RATE, 2**15),
        "floor": noise(2 * RATE, 2.0**-17),  # mel energies on both sides of the floor
        "silent": noise(2 * RATE, 2.0**-40),
        "zeros": np.zeros(RATE, np.float32),
        "impulses": impulses,
        "square": np.where(k % 147 < 73, 1, -1).astype(np.float32),
        "sweep": (k * k // 64 % 65536 - 32768).astype(np.float32) / np.float32(32768),
        "nearly": noise(30 * RATE - 150, 1),
        "short": noise(777, 1),
        "one": np.ones(1, np.float32),
    }


def log_mel(extractor, samples, whole):
    if not whole:
        count = extractor.n_samples
        samples = np.concatenate([samples[:count], np.zeros(max(count - len(samples), 0), np.float32)])
    return extractor._np_extract_fbank_features(samples[None], "cpu")[0].T


def keep(expected, name, x):
    expected[name + ".shape"] = np.array(x.shape, np.int64)
    expected[name + ".frames"] = np.ascontiguousarray(np.concatenate([x[:4], x[-4:], x[::307]]))
    expected[name + ".mean"] = np.array([x.mean(dtype=np.float64)], np.float32)


def main():
    expected = {}
    made = signals()
    for mels in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=mels)
        flat = extractor.mel_filters.ravel()
        index = np.flatnonzero(flat > 1e-9)
        expected[f"filters.{mels}.index"] = index.astype(np.int64)
        expected[f"filters.{mels}.values"] = flat[index].astype(np.float32)
        for name, x in made.items():
            keep(expected, f"{name}.window.{mels}", log_mel(extractor, x, False))
    for name in ("noise", "floor", "short", "square"):
        keep(expected, f"{name}.whole.80", log_mel(WhisperFeatureExtractor(), made[name], True))
    for n_fft, hop in ((512, 160), (399, 100), (97, 48)):
        extractor = WhisperFeatureExtractor(feature_size=40, n_fft=n_fft, hop_length=hop, chunk_length=2)
        keep(expected, f"sweep.{n_fft}.40", log_mel(extractor, made["sweep"], False))

    recording = pathlib.Path(os.environ.get("TESSERA_SHARED", ROOT / "../shared")) / "tokenizers/whisper/jfk.flac"
    command = ["ffmpeg", "-v", "error", "-i", recording, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    jfk = np.frombuffer(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout, "<f4")
    keep(expected, "jfk.window.80", log_mel(WhisperFeatureExtractor(), jfk, False))

    out = ROOT / "tests/data/log_mel/expected.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(expected, out)
    out.chmod(0o644)
    print(out.stat().st_size, "bytes in", out)


if __name__ == "__main__":
    main()
