#include "audio/sound.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"

namespace tessera::audio {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

const fs::path kData = fs::path(TESSERA_SOURCE_DIR) / "tests/data/sound";

Bytes read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in.good()) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& file, const Bytes& bytes) {
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(out.good()) << file;
}

std::vector<fs::path> fixtures() {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(kData)) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  EXPECT_GT(out.size(), 25U);
  return out;
}

Bytes text(const std::string& s) { return {s.begin(), s.end()}; }

template <class T>
Bytes bytes_of(const std::vector<T>& values) {
  Bytes out(values.size() * sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

void put(Bytes& out, std::uint32_t value, int width) {
  for (int i = 0; i < width; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

// A wav file; tag 1: integers, 3: floats.
Bytes wav(int tag, int bits, std::uint32_t rate, std::uint32_t channels, const Bytes& samples) {
  const auto frame = channels * static_cast<std::uint32_t>(bits) / 8;
  const auto size = static_cast<std::uint32_t>(samples.size());
  Bytes out = text("RIFF");
  put(out, 36 + size, 4);
  for (const char c : std::string("WAVEfmt ")) out.push_back(static_cast<std::uint8_t>(c));
  put(out, 16, 4);
  put(out, static_cast<std::uint32_t>(tag), 2);
  put(out, channels, 2);
  put(out, rate, 4);
  put(out, rate * frame, 4);
  put(out, frame, 2);
  put(out, static_cast<std::uint32_t>(bits), 2);
  for (const char c : std::string("data")) out.push_back(static_cast<std::uint8_t>(c));
  put(out, size, 4);
  out.insert(out.end(), samples.begin(), samples.end());
  return out;
}

std::vector<std::int16_t> ramp(std::size_t count) {
  std::vector<std::int16_t> out;
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(static_cast<std::int16_t>((i * 7919) % 40000 - 20000));
  }
  return out;
}

std::string message_of(const Bytes& bytes) {
  try {
    decode_sound(bytes, "some.file");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// A folder of its own, removed at the end.
class SoundFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("tessera_sound_" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  fs::path dir_;
};

TEST(Sound, SixteenKilohertzMonoIsTakenAsItIs) {
  const std::vector<std::int16_t> samples = ramp(1000);
  const Sound sound = decode_sound(wav(1, 16, 16000, 1, bytes_of(samples)), "ramp.wav");
  ASSERT_EQ(sound.samples.size(), samples.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    ASSERT_EQ(sound.samples[i], static_cast<float>(samples[i]) / 32768) << i;
  }
  EXPECT_EQ(sound.warning, "");
  EXPECT_DOUBLE_EQ(sound.seconds(), 1000 / 16000.0);
}

TEST(Sound, OneSampleIsASound) {
  EXPECT_EQ(decode_sound(wav(1, 16, 16000, 1, {0, 64}), "one.wav").samples,
            std::vector<float>{0.5f});
}

// FFmpeg adds the channels at -3 dB, and does not scale the sum down when it goes to float.
TEST(Sound, StereoIsMixedAsFfmpegDoes) {
  std::vector<std::int16_t> both;
  for (const std::int16_t x : ramp(500)) both.insert(both.end(), {x, x});
  const Sound stereo = decode_sound(wav(1, 16, 16000, 2, bytes_of(both)), "stereo.wav");
  const Sound mono = decode_sound(wav(1, 16, 16000, 1, bytes_of(ramp(500))), "mono.wav");
  ASSERT_EQ(stereo.samples.size(), mono.samples.size());
  for (std::size_t i = 0; i < mono.samples.size(); ++i) {
    ASSERT_NEAR(stereo.samples[i], std::sqrt(2.0) * mono.samples[i], 1e-6) << i;
  }
}

TEST(Sound, ChannelsWithoutPlacesCountEqually) {
  for (const std::uint32_t channels : {10U, 17U, 64U}) {
    std::vector<std::int16_t> samples;
    for (std::uint32_t i = 0; i < 100 * channels; ++i) {
      samples.push_back(i % channels == 3 ? 16384 : 0);
    }
    const Sound sound = decode_sound(wav(1, 16, 16000, channels, bytes_of(samples)), "many.wav");
    ASSERT_EQ(sound.samples.size(), 100U);
    for (const float x : sound.samples) ASSERT_NEAR(x, 0.5 / channels, 1e-6) << channels;
  }
  EXPECT_THROW(decode_sound(wav(1, 16, 16000, 65, Bytes(65 * 200)), "65.wav"), Error);
}

TEST(Sound, RatesOutOfRangeAreRefused) {
  const Bytes samples(4000);
  for (const std::uint32_t rate : {1U, 500U, 999U, 768001U, 2147483647U}) {
    EXPECT_THROW(decode_sound(wav(1, 16, rate, 1, samples), "rate.wav"), UnsupportedError) << rate;
  }
  EXPECT_EQ(decode_sound(wav(1, 16, 1000, 1, samples), "slow.wav").samples.size(), 32000U);
  EXPECT_EQ(decode_sound(wav(1, 16, 48000, 1, samples), "fast.wav").samples.size(), 667U);
}

TEST(Sound, NonNumbersBecomeSilence) {
  std::vector<float> samples(100, 0.25f);
  samples[7] = std::numeric_limits<float>::quiet_NaN();
  samples[9] = -std::numeric_limits<float>::infinity();
  const Sound sound = decode_sound(wav(3, 32, 16000, 1, bytes_of(samples)), "nan.wav");
  ASSERT_EQ(sound.samples.size(), 100U);
  EXPECT_EQ(sound.samples[7], 0);
  EXPECT_EQ(sound.samples[9], 0);
  EXPECT_EQ(sound.samples[8], 0.25f);
  EXPECT_NE(sound.warning.find("2 samples are not finite"), std::string::npos) << sound.warning;
}

TEST(Sound, NoSoundTrackIsAnError) {
  for (const char* name : {"no_sound.mp4", "picture.png", "picture.jpg"}) {
    const std::string message = message_of(read(kData / name));
    EXPECT_NE(message.find("some.file: no sound track"), std::string::npos) << message;
  }
}

TEST(Sound, WhatIsNoSoundIsAnError) {
  EXPECT_NE(message_of({}).find("empty"), std::string::npos);
  EXPECT_THROW(decode_sound({}, "empty"), FormatError);
  EXPECT_THROW(decode_sound(text("Some words, none of them sung.\n"), "words.txt"), FormatError);
  EXPECT_THROW(decode_sound(Bytes(100'000), "zeros"), FormatError);
  EXPECT_THROW(decode_sound(wav(1, 16, 16000, 1, {}), "silent.wav"), FormatError);
}

TEST(Sound, PlaylistsAndScriptsOpenNothing) {
  const std::string target = (kData / "mono16k_s16.wav").string();
  const std::string hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n";
  const std::vector<std::string> playlists = {
      hls + target + "\n#EXT-X-ENDLIST\n", hls + "http://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
      "ffconcat version 1.0\nfile " + target + "\n",
      "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
      "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" "
      "profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\" type=\"static\"><Period>"
      "<AdaptationSet mimeType=\"audio/mp4\"><Representation id=\"1\" bandwidth=\"1\">"
      "<BaseURL>file://" +
          target + "</BaseURL></Representation></AdaptationSet></Period></MPD>"};
  for (const std::string& playlist : playlists) {
    EXPECT_THROW(decode_sound(text(playlist), "list"), Error) << playlist;
  }
}

TEST(Sound, LimitsHold) {
  const Bytes second = wav(1, 16, 16000, 1, bytes_of(ramp(16000)));
  EXPECT_EQ(decode_sound(second, "second.wav", {1.0}).samples.size(), 16000U);
  EXPECT_THROW(decode_sound(second, "second.wav", {0.9}), FormatError);
  EXPECT_THROW(decode_sound(second, "second.wav", {0}), FormatError);
  // Ten minutes of silence in 500 bytes.
  EXPECT_NE(message_of(read(kData / "bomb.flac")).find("longer"), std::string::npos);
}

// How much of the coder's delay is cut off depends on FFmpeg's version.
TEST(Sound, CodersWithDelayKeepTheLength) {
  for (const char* name : {"stereo44k.wma", "stereo44k_vorbis.ogg"}) {
    const Sound sound = load_sound(kData / name);
    EXPECT_NEAR(sound.seconds(), 0.7, 0.05) << name;
    EXPECT_EQ(sound.warning, "") << name;
  }
}

TEST(Sound, CutOffWavSaysSo) {
  Bytes bytes = wav(1, 16, 16000, 1, bytes_of(ramp(16000)));
  bytes.resize(bytes.size() / 2);
  const Sound sound = decode_sound(bytes, "half.wav");
  EXPECT_NEAR(static_cast<double>(sound.samples.size()), 8000, 20);
  EXPECT_NE(sound.warning.find("the file states"), std::string::npos) << sound.warning;
}

// Written by programs that can't go back to fill in the size.
TEST(Sound, UnknownWavSizeIsNoCut) {
  Bytes bytes = wav(1, 16, 16000, 1, bytes_of(ramp(4000)));
  for (const std::size_t at : {4U, 40U}) std::fill_n(bytes.begin() + at, 4, std::uint8_t{0xff});
  const Sound sound = decode_sound(bytes, "stream.wav");
  EXPECT_EQ(sound.samples.size(), 4000U);
  EXPECT_EQ(sound.warning, "");
}

TEST(Sound, CutOffCompressedSoundIsUsedAndSaysSo) {
  for (const char* name : {"mono16k.flac", "mono16k.mp3", "stereo44k.mp3", "mono16k.aac",
                           "stereo48k.ac3", "stereo44k.wma", "stereo48k_opus.webm"}) {
    Bytes bytes = read(kData / name);
    const std::size_t whole = decode_sound(bytes, name).samples.size();
    bytes.resize(bytes.size() * 6 / 10);
    const Sound sound = decode_sound(bytes, name);
    EXPECT_LT(sound.samples.size(), whole) << name;
    EXPECT_GT(sound.samples.size(), whole / 5) << name;
    EXPECT_NE(sound.warning, "") << name;
  }
}

// FFmpeg says nothing of a missing end; what follows a stream's end does not matter.
TEST(Sound, OggWithoutItsEndSaysSo) {
  for (const char* name : {"mono48k.opus", "stereo44k_vorbis.ogg"}) {
    Bytes bytes = read(kData / name);
    Bytes longer = bytes;
    longer.insert(longer.end(), 128, std::uint8_t{'T'});
    EXPECT_EQ(decode_sound(longer, name).warning, "") << name;
    const Bytes whole = bytes;  // a second stream after the first, without its last page
    bytes.insert(bytes.end(), whole.begin(), whole.end() - 100);
    const std::string warning = decode_sound(bytes, name).warning;
    EXPECT_NE(warning.find("the Ogg stream's end is missing"), std::string::npos) << warning;
  }
}

TEST(Sound, DamageInTheMiddleIsLeftOutAndSaidSo) {
  for (const char* name :
       {"mono16k.mp3", "stereo44k.mp3", "mono16k.aac", "stereo44k.m4a", "mono16k.flac"}) {
    Bytes bytes = read(kData / name);
    const std::size_t whole = decode_sound(bytes, name).samples.size();
    for (std::size_t i = 0; i < 200; ++i) {
      bytes[bytes.size() / 2 + i] = static_cast<std::uint8_t>(i * 37 + 11);
    }
    const Sound sound = decode_sound(bytes, name);
    EXPECT_GT(sound.samples.size(), whole / 2) << name;
    EXPECT_NE(sound.warning.find("damaged"), std::string::npos) << name << ": " << sound.warning;
  }
}

TEST(Sound, EveryCutOfEveryFileIsASoundOrAnError) {
  for (const fs::path& file : fixtures()) {
    const Bytes bytes = read(file);
    for (std::size_t part = 1; part < 24; ++part) {
      const Bytes cut(bytes.begin(),
                      bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() * part / 24));
      try {
        const Sound sound = decode_sound(cut, file.string());
        EXPECT_FALSE(sound.samples.empty()) << file << " " << part;
        EXPECT_LT(sound.seconds(), 120) << file << " " << part;
      } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).rfind(file.string() + ": ", 0), 0U) << e.what();
      }
    }
  }
}

TEST(Sound, EveryDamageOfEveryFileIsASoundOrAnError) {
  std::uint32_t random = 1;
  for (const fs::path& file : fixtures()) {
    const Bytes bytes = read(file);
    for (int round = 0; round < 12; ++round) {
      Bytes damaged = bytes;
      for (int i = 0; i < 1 + round * 3; ++i) {
        random = random * 1664525 + 1013904223;
        const std::size_t range =
            round % 2 ? std::min<std::size_t>(bytes.size(), 128) : bytes.size();
        damaged[(random >> 8) % range] = static_cast<std::uint8_t>(random >> 3);
      }
      try {
        const Sound sound = decode_sound(damaged, file.string(), {30});
        EXPECT_FALSE(sound.samples.empty()) << file << " " << round;
        EXPECT_TRUE(std::all_of(sound.samples.begin(), sound.samples.end(),
                                [](float x) { return std::isfinite(x); }));
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()), "");
      }
    }
  }
}

TEST(Sound, FfmpegStaysSilent) {
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  Bytes bytes = read(kData / "mono16k.mp3");
  for (std::size_t i = 0; i < 300; ++i) bytes[bytes.size() / 2 + i] = 0xa5;
  try {
    decode_sound(bytes, "damaged.mp3");
  } catch (const Error&) {
  }
  EXPECT_THROW(decode_sound(Bytes(1000, 7), "noise"), Error);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
}

TEST(Sound, FormatMayChangeOnTheWay) {
  Bytes bytes = read(kData / "mono16k.mp3");
  const Bytes second = read(kData / "stereo44k.mp3");
  bytes.insert(bytes.end(), second.begin(), second.end());
  EXPECT_NEAR(decode_sound(bytes, "both.mp3").seconds(), 1.4, 0.15);
}

TEST(Sound, ThreadsDecodeAtOnce) {
  const Sound expected = load_sound(kData / "stereo44k.mp3");
  std::vector<Sound> sounds(4);
  std::vector<std::thread> threads;
  for (Sound& sound : sounds) {
    threads.emplace_back([&sound] {
      for (int i = 0; i < 4; ++i) sound = load_sound(kData / "stereo44k.mp3");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Sound& sound : sounds) EXPECT_EQ(sound.samples, expected.samples);
}

TEST_F(SoundFiles, NamesAreOnlyNames) {
  const Bytes bytes = read(kData / "mono16k_s16.wav");
  const std::vector<float> expected = load_sound(kData / "mono16k_s16.wav").samples;
  const fs::path before = fs::current_path();
  fs::current_path(dir_);
  for (const char* name :
       {"-i.wav", "concat:a.wav", "pipe:0", "http:x", "frame%03d.wav", "list.m3u8", "a b\n.jpg"}) {
    write(dir_ / name, bytes);
    EXPECT_EQ(load_sound(name).samples, expected) << name;
    EXPECT_EQ(load_sound(dir_ / name).samples, expected) << name;
  }
  fs::current_path(before);
}

TEST_F(SoundFiles, WhatCannotBeOpenedIsAnIoError) {
  EXPECT_THROW(load_sound(dir_ / "absent.wav"), IoError);
  EXPECT_THROW(load_sound(dir_), IoError);
  EXPECT_THROW(load_sound(""), IoError);
  EXPECT_THROW(load_sound("/dev/null"), FormatError);
  write(dir_ / "empty.wav", {});
  EXPECT_THROW(load_sound(dir_ / "empty.wav"), FormatError);
}

TEST_F(SoundFiles, APipeWorks) {
  const fs::path pipe = dir_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] { write(pipe, read(kData / "stereo44k.m4a")); });
  const Sound sound = load_sound(pipe);
  writer.join();
  EXPECT_EQ(sound.samples, load_sound(kData / "stereo44k.m4a").samples);
}

TEST(Pcm, EqualsTheSameSamplesInAFile) {
  const Bytes s16 = bytes_of(ramp(3000));
  std::vector<float> floats;
  for (const std::int16_t x : ramp(3000)) floats.push_back(static_cast<float>(x) / 30000);
  const Bytes f32 = bytes_of(floats);
  for (const std::int64_t rate : {8000, 16000, 44100, 48000}) {
    for (const std::int64_t channels : {1, 2, 6, 10}) {
      const auto r = static_cast<std::uint32_t>(rate), c = static_cast<std::uint32_t>(channels);
      EXPECT_EQ(from_pcm(s16, PcmFormat::s16le, rate, channels).samples,
                decode_sound(wav(1, 16, r, c, s16), "s16").samples)
          << rate << " " << channels;
      EXPECT_EQ(from_pcm(f32, PcmFormat::f32le, rate, channels).samples,
                decode_sound(wav(3, 32, r, c, f32), "f32").samples)
          << rate << " " << channels;
    }
  }
}

TEST(Pcm, BytesLeftOverAreLeftOut) {
  const Sound sound = from_pcm(Bytes(4 * 10 + 3), PcmFormat::s16le, 16000, 2);
  EXPECT_EQ(sound.samples.size(), 10U);
  EXPECT_NE(sound.warning.find("3 bytes"), std::string::npos) << sound.warning;
}

TEST(Pcm, RefusesWhatItCannotDo) {
  const Bytes bytes(100);
  EXPECT_THROW(from_pcm({}, PcmFormat::s16le, 16000, 1), FormatError);
  EXPECT_THROW(from_pcm(Bytes(3), PcmFormat::s16le, 16000, 2), FormatError);
  EXPECT_THROW(from_pcm(bytes, PcmFormat::s16le, 0, 1), ArgumentError);
  EXPECT_THROW(from_pcm(bytes, PcmFormat::s16le, -16000, 1), ArgumentError);
  EXPECT_THROW(from_pcm(bytes, PcmFormat::f32le, 10'000'000, 1), ArgumentError);
  EXPECT_THROW(from_pcm(bytes, PcmFormat::f32le, 16000, 0), ArgumentError);
  EXPECT_THROW(from_pcm(bytes, PcmFormat::f32le, 16000, 65), ArgumentError);
}

}  // namespace
}  // namespace tessera::audio
