#include "audio/streamed_log_mel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace tessera::audio {
namespace {

/// A second is a window, so that a few seconds are long.
LogMel short_windows() {
  return LogMel(Config::parse(R"({"chunk_length": 1})", "preprocessor_config.json"));
}

/// Grows louder, so that the maximum is at the end.
std::vector<float> crescendo(std::int64_t count) {
  std::vector<float> out;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto x = static_cast<double>(i);
    out.push_back(static_cast<float>(std::sin(1.7 * (i * i % 1009)) * x / 1e5));
  }
  return out;
}

TEST(StreamedLogMel, EveryWindowIsThatOfTheWhole) {
  Context ctx({.threads = 2});
  const LogMel log_mel = short_windows();
  for (const std::int64_t length : {16001, 16159, 16160, 16161, 31999, 32000, 32040, 100'000}) {
    const std::vector<float> samples = crescendo(length);
    const Tensor whole = log_mel.whole(ctx, samples);
    for (const std::int64_t step : {1, 37, 64, 99, 100}) {
      if (step == 1 && length > 32040) continue;
      const auto stream = open_samples(samples);
      StreamedLogMel streamed(log_mel, *stream);
      while (streamed.listen(ctx)) {
      }
      ASSERT_EQ(streamed.frames(), whole.dim(0));
      EXPECT_DOUBLE_EQ(streamed.seconds(), static_cast<double>(length) / 16000);
      for (std::int64_t first = 0; first < whole.dim(0); first += step) {
        const std::int64_t count = std::min(whole.dim(0) - first, std::int64_t{100});
        const Tensor window = streamed.window(ctx, first, count);
        const Tensor expected = whole.slice(first, first + count);
        ASSERT_EQ(window.to_vector(), expected.to_vector())
            << length << " samples, frame " << first;
      }
    }
  }
}

TEST(StreamedLogMel, ShortSoundIsOneWindow) {
  Context ctx({.threads = 2});
  const LogMel log_mel = short_windows();
  for (const std::int64_t count : {1, 159, 16000}) {
    const std::vector<float> samples = crescendo(count);
    const auto stream = open_samples(samples);
    StreamedLogMel streamed(log_mel, *stream);
    while (streamed.listen(ctx)) {
    }
    EXPECT_EQ(streamed.frames(), log_mel.frames());
    EXPECT_EQ(streamed.window(ctx, 0, streamed.frames()).to_vector(),
              log_mel(ctx, samples).to_vector());
  }
  const auto nothing = open_samples({});
  StreamedLogMel streamed(log_mel, *nothing);
  EXPECT_THROW(streamed.listen(ctx), ArgumentError);
}

/// Loses its end when it is read for the second time.
class Shrinking : public SoundStream {
 public:
  std::int64_t read(float* to, std::int64_t n) override {
    n = std::min(n, length_ - at_);
    std::fill_n(to, n, 0.25f);
    at_ += n;
    return n;
  }
  void rewind() override {
    at_ = 0;
    length_ /= 2;
  }

 private:
  std::int64_t at_ = 0, length_ = 50'000;
};

TEST(StreamedLogMel, NoticesASoundThatChanges) {
  Context ctx({.threads = 1});
  const LogMel log_mel = short_windows();
  Shrinking sound;
  StreamedLogMel streamed(log_mel, sound);
  while (streamed.listen(ctx)) {
  }
  streamed.window(ctx, 0, 100);
  EXPECT_THROW(streamed.window(ctx, 200, 100), IoError);
}

}  // namespace
}  // namespace tessera::audio
