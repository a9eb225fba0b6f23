#include "audio/sound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/weights.h"

namespace tessera::audio {
namespace {

const std::filesystem::path kData = std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/data/sound";

std::vector<std::string> names() {
  const std::string ending = ".count";
  std::vector<std::string> out;
  for (const std::string& name : Weights::open(kData / "expected.safetensors").names()) {
    if (name.ends_with(ending)) out.push_back(name.substr(0, name.size() - ending.size()));
  }
  return out;
}

// What make_sound.py keeps of a sound: the first and last 32 samples and every 61st.
std::vector<float> kept(const std::vector<float>& samples) {
  std::vector<float> out(samples.begin(), samples.begin() + 32);
  out.insert(out.end(), samples.end() - 32, samples.end());
  for (std::size_t i = 0; i < samples.size(); i += 61) out.push_back(samples[i]);
  return out;
}

void expect_golden(const Weights& expected, const std::string& name) {
  SCOPED_TRACE(name);
  const Sound sound = load_sound(kData / name);
  EXPECT_EQ(sound.warning, "");
  ASSERT_EQ(static_cast<std::int64_t>(sound.samples.size()),
            expected.get(name + ".count").data<std::int64_t>()[0]);
  const std::vector<float> values = kept(sound.samples);
  const Tensor wanted = expected.get(name + ".values");
  ASSERT_EQ(static_cast<std::int64_t>(values.size()), wanted.numel());
  double worst = 0, energy = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(values[i]) - wanted.data()[i]));
  }
  EXPECT_LE(worst, 1e-4);
  for (const float x : sound.samples) energy += static_cast<double>(x) * x;
  const double wanted_energy = expected.get(name + ".energy").data()[0];
  EXPECT_NEAR(energy, wanted_energy, 1e-4 * wanted_energy);
}

TEST(GoldenSound, EveryFormatDecodesAsTheFfmpegCommandDoes) {
  const Weights expected = Weights::open(kData / "expected.safetensors");
  const std::vector<std::string> files = names();
  ASSERT_EQ(files.size(), 22U);
  for (const std::string& name : files) expect_golden(expected, name);
}

TEST(GoldenSound, MemoryAndFileGiveTheSame) {
  for (const std::string& name : names()) {
    std::ifstream in(kData / name, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
    const Sound sound =
        decode_sound({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, "memory");
    EXPECT_EQ(sound.samples, load_sound(kData / name).samples) << name;
  }
}

}  // namespace
}  // namespace tessera::audio
