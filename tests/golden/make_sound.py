#!/usr/bin/env python3
"""Makes tests/data/sound: tiny sound files of many formats, and what the ffmpeg command decodes them to.

    make_sound.py            (needs ffmpeg 5.1, numpy, safetensors)

expected.safetensors holds, for each file, what `ffmpeg -i FILE -ac 1 -ar 16000 -f f32le -` gives: the number of samples
(NAME.count), the first and last 32 and every 61st sample (NAME.values), and the sum of squares (NAME.energy).
"""
import pathlib, shutil, subprocess, tempfile
import numpy as np
from safetensors.numpy import save_file

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "sound"
EXACT = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact", "-flags:v", "+bitexact"]
SECONDS = 0.7
SURROUND = "pan=5.1|FL=c0|FR=0.5*c0|FC=0.8*c1|LFE=0.3*c0|BL=0.2*c1|BR=0.4*c0+0.1*c1"

# name -> (rate, channels, ffmpeg's output options)
SOUNDS = {
    "mono16k_s16.wav": (16000, 1, ["-c:a", "pcm_s16le"]),
    "mono16k_f32.wav": (16000, 1, ["-t", "0.2", "-c:a", "pcm_f32le"]),
    "mono8k_u8.wav": (8000, 1, ["-c:a", "pcm_u8"]),
    "mono8k_alaw.wav": (8000, 1, ["-c:a", "pcm_alaw"]),
    "stereo22k_s24.wav": (22050, 2, ["-t", "0.15", "-c:a", "pcm_s24le"]),
    "stereo11k_f64.wav": (11025, 2, ["-t", "0.15", "-c:a", "pcm_f64le"]),
    "surround16k_s16.wav": (16000, 2, ["-t", "0.15", "-af", SURROUND, "-c:a", "pcm_s16le"]),
    "stereo44k.mp3": (44100, 2, ["-c:a", "libmp3lame", "-b:a", "48k"]),
    "mono16k.mp3": (16000, 1, ["-c:a", "libmp3lame", "-b:a", "24k"]),
    "stereo48k.flac": (48000, 2, ["-t", "0.1", "-c:a", "flac"]),
    "mono16k.flac": (16000, 1, ["-c:a", "flac", "-sample_fmt", "s16"]),
    "surround48k.flac": (48000, 2, ["-t", "0.06", "-af", SURROUND, "-c:a", "flac", "-sample_fmt", "s16"]),
    "stereo44k_vorbis.ogg": (44100, 2, ["-c:a", "libvorbis", "-q:a", "0"]),
    "mono48k.opus": (48000, 1, ["-c:a", "libopus", "-b:a", "24k"]),
    "stereo44k.m4a": (44100, 2, ["-c:a", "aac", "-b:a", "48k"]),
    "mono16k.aac": (16000, 1, ["-c:a", "aac", "-b:a", "24k", "-f", "adts"]),
    "stereo48k.ac3": (48000, 2, ["-c:a", "ac3", "-b:a", "64k"]),
    "stereo44k.wma": (44100, 2, ["-c:a", "wmav2", "-b:a", "48k"]),
    "stereo32k.aiff": (32000, 2, ["-t", "0.1", "-c:a", "pcm_s16be"]),
    "stereo48k_opus.webm": (48000, 2, ["-c:a", "libopus", "-b:a", "32k"]),
}
VARIES = {"stereo44k.wma", "stereo44k_vorbis.ogg"}  # FFmpeg 4.4 cuts their ends elsewhere: no expectations
VIDEOS = {
    "video.mp4": (44100, 2, ["-c:v", "mpeg4", "-c:a", "aac", "-b:a", "48k"]),
    "video.avi": (22050, 1, ["-c:v", "mpeg4", "-c:a", "libmp3lame", "-b:a", "24k"]),
    "video.mkv": (16000, 1, ["-c:v", "mpeg4", "-c:a", "flac", "-sample_fmt", "s16"]),
    "video.ts": (48000, 1, ["-c:v", "mpeg2video", "-c:a", "mp2", "-b:a", "64k", "-f", "mpegts"]),
}
SILENT = {  # nothing to hear
    "no_sound.mp4": ["-c:v", "mpeg4"],
    "picture.png": ["-frames:v", "1", "-c:v", "png", "-update", "1"],
    "picture.jpg": ["-frames:v", "1", "-c:v", "mjpeg", "-update", "1"],
}


def ffmpeg(*args, **kw):
    return subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, args)], check=True, **kw)


def signal(rate, channels):
    """Two sliding tones and a little noise, different in each channel, ending abruptly."""
    t = np.arange(int(SECONDS * rate)) / rate
    noise = np.random.default_rng(7).standard_normal((len(t), channels)) * 0.01
    left = 0.4 * np.sin(2 * np.pi * (300 * t + 900 * t * t)) + 0.2 * np.sin(2 * np.pi * 1700 * t)
    right = 0.5 * np.sin(2 * np.pi * (1500 * t - 700 * t * t) + 1)
    return (np.stack([left, right], 1)[:, :channels] + noise).astype("<f4")


def make(name, rate, channels, options, scratch, video=()):
    raw = scratch / "raw.f32"
    raw.write_bytes(signal(rate, channels).tobytes())
    ffmpeg(*video, "-f", "f32le", "-ar", rate, "-ac", channels, "-i", raw, *options, *EXACT, DATA / name)


def reference(path):
    out = ffmpeg("-i", path, "-ac", 1, "-ar", 16000, "-f", "f32le", "-", stdout=subprocess.PIPE).stdout
    return np.frombuffer(out, "<f4")


def main():
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    film = ["-f", "lavfi", "-i", f"testsrc=size=32x32:rate=10:duration={SECONDS}"]
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in SOUNDS.items():
            make(name, *spec, pathlib.Path(folder))
        for name, spec in VIDEOS.items():
            make(name, *spec, pathlib.Path(folder), film)
    for name, options in SILENT.items():
        ffmpeg(*film, *options, *EXACT, DATA / name)

    # Ten minutes in two kilobytes: more than any recording could hold.
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=1000:cl=mono", "-t", "600", "-frame_size", "16384", "-metadata_header_padding", "0", *EXACT, DATA / "bomb.flac")

    expected = {}
    for name in sorted({*SOUNDS, *VIDEOS} - VARIES):
        x = reference(DATA / name)
        expected[name + ".count"] = np.array([len(x)], np.int64)
        expected[name + ".values"] = np.concatenate([x[:32], x[-32:], x[::61]])
        expected[name + ".energy"] = np.array([np.sum(np.square(x, dtype=np.float64))], np.float32)
    save_file(expected, DATA / "expected.safetensors")
    (DATA / "expected.safetensors").chmod(0o644)
    print(sum(f.stat().st_size for f in DATA.iterdir()), "bytes in", DATA)


if __name__ == "__main__":
    main()
