#include "audio/log_mel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <vector>

#include "audio/fft.h"
#include "audio/sound.h"
#include "core/error.h"

namespace tessera::audio {
namespace {

std::vector<float> tone(std::int64_t count) {
  std::vector<float> out;
  for (std::int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<float>(0.5 * std::sin(0.1 * static_cast<double>(i)) +
                                     0.1 * std::sin(1.7 * static_cast<double>(i * i % 1009))));
  }
  return out;
}

// Transforms `count` signals of length n at once and by the definition.
void check_fft(std::int64_t n, std::int64_t count) {
  const auto total = static_cast<std::size_t>(n * count);
  std::vector<double> re(total), im(total), work_re(total), work_im(total);
  std::vector<std::complex<double>> in(total);
  for (std::size_t i = 0; i < total; ++i) {
    const auto x = static_cast<double>(i);
    in[i] = {std::sin(1.3 * x * x), std::cos(0.7 * x) - 0.2};
    re[i] = in[i].real();
    im[i] = in[i].imag();
  }
  Fft{n}(count, re.data(), im.data(), work_re.data(), work_im.data());
  for (std::int64_t k = 0; k < n; ++k) {
    for (std::int64_t s = 0; s < count; ++s) {
      std::complex<double> sum = 0;
      for (std::int64_t t = 0; t < n; ++t) {
        const double angle =
            -2 * std::numbers::pi * static_cast<double>(t * k % n) / static_cast<double>(n);
        sum += in[static_cast<std::size_t>(t * count + s)] * std::polar(1.0, angle);
      }
      const auto at = static_cast<std::size_t>(k * count + s);
      ASSERT_NEAR(re[at], sum.real(), 1e-10) << "n " << n << " bin " << k << " signal " << s;
      ASSERT_NEAR(im[at], sum.imag(), 1e-10) << "n " << n << " bin " << k << " signal " << s;
    }
  }
}

TEST(Fft, AgreesWithTheDefinition) {
  for (const std::int64_t n :
       {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 25, 30, 49, 60, 64, 97, 121, 400}) {
    check_fft(n, 1);
    check_fft(n, 3);
  }
}

TEST(LogMel, DefaultsAreWhispers) {
  const LogMel log_mel;
  EXPECT_EQ(log_mel.mels(), 80);
  EXPECT_EQ(log_mel.frames(), 3000);
  EXPECT_EQ(log_mel.samples_per_window(), 480000);
  EXPECT_EQ(log_mel.hop(), 160);
}

TEST(LogMel, ThreadsDoNotChangeABit) {
  const std::vector<float> samples = tone(200'000);
  Context one({1, {}});
  const std::vector<float> expected = LogMel()(one, samples).to_vector();
  const std::vector<float> expected_whole = LogMel().whole(one, samples).to_vector();
  for (const int threads : {2, 3, 5}) {
    Context ctx({threads, {}});
    EXPECT_EQ(LogMel()(ctx, samples).to_vector(), expected);
    EXPECT_EQ(LogMel().whole(ctx, samples).to_vector(), expected_whole);
  }
}

TEST(LogMel, WholeOfAFullWindowIsTheWindow) {
  Context ctx;
  const std::vector<float> samples = tone(480'000);
  EXPECT_EQ(LogMel().whole(ctx, samples).to_vector(), LogMel()(ctx, samples).to_vector());
}

TEST(LogMel, PaddingEqualsZerosGiven) {
  Context ctx;
  for (const std::int64_t count : {1, 199, 200, 201, 16'000, 479'599, 479'600, 479'601, 479'999}) {
    std::vector<float> samples = tone(count);
    const std::vector<float> padded_here = LogMel()(ctx, samples).to_vector();
    samples.resize(480'000);
    EXPECT_EQ(LogMel()(ctx, samples).to_vector(), padded_here) << count;
  }
}

TEST(LogMel, NothingIsSilence) {
  Context ctx;
  const Tensor out = LogMel()(ctx, {});
  EXPECT_EQ(out.shape(), (Shape{3000, 80}));
  EXPECT_EQ(out.to_vector(), std::vector<float>(3000 * 80, -1.5f));
}

TEST(LogMel, WholeNeedsAHop) {
  Context ctx;
  EXPECT_THROW(LogMel().whole(ctx, {}), ArgumentError);
  EXPECT_THROW(LogMel().whole(ctx, tone(159)), ArgumentError);
  EXPECT_EQ(LogMel().whole(ctx, tone(160)).shape(), (Shape{1, 80}));
  EXPECT_EQ(LogMel().whole(ctx, tone(481'000)).shape(), (Shape{3006, 80}));
}

TEST(LogMel, EndsForNonNumbers) {
  Context ctx;
  std::vector<float> samples = tone(1000);
  samples[500] = std::numeric_limits<float>::quiet_NaN();
  samples[600] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(LogMel()(ctx, samples).shape(), (Shape{3000, 80}));
}

TEST(LogMel, RefusesWhatItCannotDo) {
  const auto with = [](const char* text) {
    return Config::parse(text, "preprocessor_config.json");
  };
  EXPECT_THROW(LogMel(with(R"({"sampling_rate": 8000})")), UnsupportedError);
  EXPECT_THROW(LogMel(with(R"({"dither": 0.1})")), UnsupportedError);
  EXPECT_THROW(LogMel(with(R"({"padding_value": 1.0})")), UnsupportedError);
  EXPECT_THROW(LogMel(with(R"({"feature_size": 0})")), FormatError);
  EXPECT_THROW(LogMel(with(R"({"hop_length": -1})")), FormatError);
  EXPECT_THROW(LogMel(with(R"({"n_fft": 1000000000})")), FormatError);
  EXPECT_THROW(LogMel(with(R"({"hop_length": 1, "chunk_length": 3600})")), FormatError);
  EXPECT_THROW(LogMel(with(R"({"chunk_length": 1000000000000})")), FormatError);
}

}  // namespace
}  // namespace tessera::audio
