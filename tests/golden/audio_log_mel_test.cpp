#include "audio/log_mel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "audio/mel_filters.h"
#include "audio/sound.h"
#include "core/weights.h"

namespace tessera::audio {
namespace {

constexpr std::int64_t kWindow = 30 * kSampleRate;

Weights golden() {
  return Weights::open(std::filesystem::path(TESSERA_SOURCE_DIR) /
                       "tests/data/log_mel/expected.safetensors");
}

std::vector<float> noise(std::int64_t count, double scale) {
  std::vector<float> out;
  std::uint32_t state = 1;
  for (std::int64_t i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    const auto centred = static_cast<float>(static_cast<std::int32_t>(state >> 8) - (1 << 23));
    out.push_back(centred * static_cast<float>(scale / (1 << 23)));
  }
  return out;
}

template <class Function>
std::vector<float> window_of(Function f) {
  std::vector<float> out;
  for (std::int64_t k = 0; k < kWindow; ++k) out.push_back(f(k));
  return out;
}

// The same as in make_log_mel.py, to the bit.
std::vector<float> signal(const std::string& name) {
  if (name == "noise") return noise(31 * kSampleRate, 1);
  if (name == "loud") return noise(3 * kSampleRate, 32768);
  if (name == "floor") return noise(2 * kSampleRate, std::ldexp(1, -17));
  if (name == "silent") return noise(2 * kSampleRate, std::ldexp(1, -40));
  if (name == "zeros") return std::vector<float>(kSampleRate, 0);
  if (name == "nearly") return noise(kWindow - 150, 1);
  if (name == "short") return noise(777, 1);
  if (name == "one") return {1};
  if (name == "impulses") {
    return window_of([](std::int64_t k) {
      return k == 0 || k == 5 || k == 1000 || k == kWindow - 1 ? 1.0f : 0.0f;
    });
  }
  if (name == "square") {
    return window_of([](std::int64_t k) { return k % 147 < 73 ? 1.0f : -1.0f; });
  }
  if (name == "sweep") {
    return window_of(
        [](std::int64_t k) { return static_cast<float>(k * k / 64 % 65536 - 32768) / 32768; });
  }
  ADD_FAILURE() << "no signal " << name;
  return {};
}

// Compares what make_log_mel.py keeps: the first and last four frames, every 307th, and the mean.
void expect_golden(const Weights& expected, const std::string& name, const Tensor& actual) {
  SCOPED_TRACE(name);
  const Tensor shape = expected.get(name + ".shape");
  ASSERT_EQ(actual.rank(), 2);
  ASSERT_EQ(actual.dim(0), shape.data<std::int64_t>()[0]);
  ASSERT_EQ(actual.dim(1), shape.data<std::int64_t>()[1]);
  std::vector<std::int64_t> frames;
  const std::int64_t count = actual.dim(0);
  for (std::int64_t f = 0; f < std::min<std::int64_t>(count, 4); ++f) frames.push_back(f);
  for (std::int64_t f = std::max<std::int64_t>(count - 4, 0); f < count; ++f) frames.push_back(f);
  for (std::int64_t f = 0; f < count; f += 307) frames.push_back(f);

  const Tensor wanted = expected.get(name + ".frames");
  ASSERT_EQ(wanted.dim(0), static_cast<std::int64_t>(frames.size()));
  double worst = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const float* a = actual[frames[i]].data();
    const float* b = wanted[static_cast<std::int64_t>(i)].data();
    for (std::int64_t m = 0; m < actual.dim(1); ++m) {
      const double off = std::abs(static_cast<double>(a[m]) - b[m]);
      if (!(off <= worst)) worst = off;  // takes NaN, too
    }
  }
  EXPECT_LE(worst, 1e-5);  // the bar is 1e-4
  double sum = 0;
  for (const float x : actual.to_vector()) sum += x;
  EXPECT_NEAR(sum / static_cast<double>(actual.numel()), expected.get(name + ".mean").data()[0],
              1e-5);
}

Config config(int mels, const std::string& more = "") {
  return Config::parse("{\"feature_size\": " + std::to_string(mels) + more + "}", "test");
}

TEST(GoldenLogMel, FiltersAreThoseOfTheReference) {
  const Weights expected = golden();
  for (const std::int64_t mels : {80, 128}) {
    std::vector<double> wanted(static_cast<std::size_t>(201 * mels));
    const Tensor index = expected.get("filters." + std::to_string(mels) + ".index");
    const Tensor values = expected.get("filters." + std::to_string(mels) + ".values");
    for (std::int64_t i = 0; i < index.numel(); ++i) {
      wanted[static_cast<std::size_t>(index.data<std::int64_t>()[i])] = values.data()[i];
    }
    const MelFilters filters(mels, 201, kSampleRate);
    ASSERT_EQ(static_cast<std::int64_t>(filters.filters.size()), mels);
    std::vector<double> actual(wanted.size());
    for (std::size_t m = 0; m < filters.filters.size(); ++m) {
      const MelFilters::Filter& filter = filters.filters[m];
      for (std::size_t i = 0; i < filter.weights.size(); ++i) {
        const std::size_t bin = static_cast<std::size_t>(filter.first) + i;
        actual[bin * static_cast<std::size_t>(mels) + m] = filter.weights[i];
      }
    }
    for (std::size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(actual[i], wanted[i], 2e-9) << i;
  }
}

TEST(GoldenLogMel, WindowsOfEverySignal) {
  const Weights expected = golden();
  Context ctx;
  for (const int mels : {80, 128}) {
    const LogMel log_mel(config(mels));
    for (const char* name : {"noise", "loud", "floor", "silent", "zeros", "impulses", "square",
                             "sweep", "nearly", "short", "one"}) {
      expect_golden(expected, std::string(name) + ".window." + std::to_string(mels),
                    log_mel(ctx, signal(name)));
    }
  }
}

TEST(GoldenLogMel, WholeSounds) {
  const Weights expected = golden();
  Context ctx;
  const LogMel log_mel;
  for (const char* name : {"noise", "floor", "short", "square"}) {
    expect_golden(expected, std::string(name) + ".whole.80", log_mel.whole(ctx, signal(name)));
  }
}

TEST(GoldenLogMel, OtherTransformSizes) {
  const Weights expected = golden();
  Context ctx;
  for (const auto& [n_fft, hop] : {std::pair{512, 160}, std::pair{399, 100}, std::pair{97, 48}}) {
    const LogMel log_mel(
        config(40, ", \"n_fft\": " + std::to_string(n_fft) +
                       ", \"chunk_length\": 2, \"hop_length\": " + std::to_string(hop)));
    expect_golden(expected, "sweep." + std::to_string(n_fft) + ".40",
                  log_mel(ctx, signal("sweep")));
  }
}

TEST(RealLogMel, Recording) {
  const char* set = std::getenv("TESSERA_SHARED");
  const std::filesystem::path shared = set ? set : TESSERA_SOURCE_DIR "/../shared";
  const std::filesystem::path file = shared / "tokenizers/whisper/jfk.flac";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << file << " is absent";
  const Sound sound = load_sound(file);
  EXPECT_EQ(sound.samples.size(), 176000U);
  EXPECT_EQ(sound.warning, "");
  Context ctx;
  expect_golden(golden(), "jfk.window.80", LogMel()(ctx, sound.samples));
}

}  // namespace
}  // namespace tessera::audio
