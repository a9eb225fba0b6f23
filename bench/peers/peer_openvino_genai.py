"""OpenVINO GenAI's Whisper pipeline, as a program: file to text. The model is exported by optimum-intel (see cases.py).

    peer_openvino_genai.py MODEL SOUND BEAMS THREADS [PRECISION]
"""
import sys

import openvino_genai
import soundfile


def main():
    path, sound, beams, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    precision = sys.argv[5] if len(sys.argv) > 5 else "f32"
    samples, rate = soundfile.read(sound, dtype="float32")
    assert rate == 16000 and samples.ndim == 1
    pipeline = openvino_genai.WhisperPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads, INFERENCE_PRECISION_HINT=precision)
    print(pipeline.generate(samples, num_beams=beams, return_timestamps=True))


if __name__ == "__main__":
    main()
