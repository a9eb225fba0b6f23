#include "audio/pieces.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tessera::audio {
namespace {

/// A tone with pauses of half a second around these seconds.
std::vector<float> tone(double seconds, const std::vector<double>& pauses) {
  std::vector<float> samples(static_cast<std::size_t>(seconds * kSampleRate));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const double t = static_cast<double>(i) / kSampleRate;
    samples[i] = static_cast<float>(0.5 * std::sin(t * 2000));
    for (const double pause : pauses)
      if (std::abs(t - pause) < 0.25) samples[i] = 0.001f;
  }
  return samples;
}

std::vector<Pieces::Piece> cut(const std::vector<float>& samples, std::int64_t most) {
  const auto stream = open_samples(samples);
  Pieces pieces(*stream, most);
  std::vector<Pieces::Piece> out;
  while (auto piece = pieces.next()) out.push_back(std::move(*piece));
  EXPECT_FALSE(pieces.next());
  return out;
}

void expect_whole(const std::vector<float>& samples, const std::vector<Pieces::Piece>& pieces,
                  std::int64_t most) {
  std::vector<float> all;
  for (const Pieces::Piece& piece : pieces) {
    EXPECT_EQ(piece.start, std::ssize(all));
    EXPECT_LE(std::ssize(piece.samples), most);
    EXPECT_FALSE(piece.samples.empty());
    all.insert(all.end(), piece.samples.begin(), piece.samples.end());
  }
  EXPECT_EQ(all, samples);
}

TEST(Pieces, EndInPauses) {
  const auto samples = tone(25, {3, 8.1, 9.5, 17, 19});
  const auto pieces = cut(samples, 10 * kSampleRate);
  expect_whole(samples, pieces, 10 * kSampleRate);
  ASSERT_EQ(pieces.size(), 3u);
  // the last of those that are about as quiet, in the last third
  EXPECT_NEAR(static_cast<double>(pieces[1].start) / kSampleRate, 9.5, 0.15);
  EXPECT_NEAR(static_cast<double>(pieces[2].start) / kSampleRate, 19, 0.15);
  EXPECT_EQ(pieces[1].start % kPieceStep, 0);
}

TEST(Pieces, AreOneWhereTheSoundFits) {
  const auto samples = tone(10, {5});
  ASSERT_EQ(std::ssize(samples), 10 * kSampleRate);
  const auto pieces = cut(samples, 10 * kSampleRate);
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].samples, samples);
}

TEST(Pieces, CoverSilenceAndAwkwardLengths) {
  for (const std::size_t count : {1u, 319u, 16001u, 48000u, 99999u}) {
    const std::vector<float> silence(count, 0.0f);
    for (const std::int64_t most : {std::int64_t{1}, std::int64_t{700}, 16000l})
      if (std::ssize(silence) / most < 5000) expect_whole(silence, cut(silence, most), most);
  }
}

}  // namespace
}  // namespace tessera::audio
