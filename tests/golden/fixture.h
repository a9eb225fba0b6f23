#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "core/tensor.h"
#include "core/weights.h"

namespace tessera::golden {

/// One generate() call of the reference, as golden.json has it (tests/data/families/FORMAT.md).
struct Generated {
  std::string name;
  std::vector<std::int32_t> prompt;
  Config options;  ///< HF generate() arguments, in generation_config.json's names
  std::vector<std::int32_t> ids;
  struct Hypothesis {
    std::vector<std::int32_t> ids;
    double score = 0;
  };
  std::vector<Hypothesis> hypotheses;  ///< beam search only, best first
  Config entry;                        ///< all of it, for what only one family has
};

inline std::vector<std::int32_t> to_ids(const std::vector<std::int64_t>& values) {
  return {values.begin(), values.end()};
}

/// All numbers within tolerance * (largest number expected)? Names the worst element.
inline ::testing::AssertionResult close_to(const Tensor& actual, const Tensor& expected,
                                           double tolerance) {
  if (!actual) return ::testing::AssertionFailure() << "no tensor";
  if (!(actual.shape() == expected.shape()))
    return ::testing::AssertionFailure()
           << "shape " << actual.shape().str() << ", expected " << expected.shape().str();
  const std::vector<float> a = actual.to_vector(), b = expected.to_vector();
  double largest = 0, worst = -1;
  std::size_t at = 0, beyond = 0;
  for (const float value : b) largest = std::max(largest, std::abs(static_cast<double>(value)));
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double off = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(off <= tolerance * largest)) ++beyond;  // counts NaN, too
    if (!(off <= worst)) worst = off, at = i;
  }
  if (beyond == 0) return ::testing::AssertionSuccess();
  std::string place;
  std::size_t rest = at;
  for (int d = expected.rank() - 1; d >= 0; --d) {
    const auto length = static_cast<std::size_t>(expected.dim(d));
    place = std::to_string(rest % length) + (place.empty() ? "" : ", ") + place;
    rest /= length;
  }
  return ::testing::AssertionFailure()
         << beyond << " of " << b.size() << " numbers are off; the worst, at [" << place << "], is "
         << a[at] << ", expected " << b[at] << ": " << worst / largest << " of the largest ("
         << largest << "), allowed " << tolerance;
}

/// HF's input_features [mels, frames] as the towers take them: [frames, mels].
inline Tensor time_first(const Tensor& mel) {
  Tensor turned = Tensor::empty({mel.dim(1), mel.dim(0)});
  for (std::int64_t m = 0; m < mel.dim(0); ++m) {
    for (std::int64_t t = 0; t < mel.dim(1); ++t)
      turned.data()[t * mel.dim(0) + m] = mel.data()[m * mel.dim(1) + t];
  }
  return turned;
}

/// A golden case: a tiny random checkpoint, and what the reference makes of it.
class Case {
 public:
  static std::filesystem::path folder() {
    return std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/data/families";
  }
  /// The names of all cases that start with `prefix`, sorted.
  static std::vector<std::string> all(const std::string& prefix) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder()))
      if (entry.is_directory() && entry.path().filename().string().rfind(prefix, 0) == 0)
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  explicit Case(const std::string& name)
      : name_(name),
        golden_(Weights::open(dir() / "golden.safetensors")),
        notes_(Config::read(dir() / "golden.json")) {}

  const std::string& name() const { return name_; }
  std::filesystem::path dir() const { return folder() / name_; }
  Config config() const { return Config::read(dir() / "config.json"); }
  Config generation_config() const { return Config::read(dir() / "generation_config.json"); }
  Config preprocessor_config() const { return Config::read(dir() / "preprocessor_config.json"); }
  Weights weights() const { return Weights::open(dir()); }
  /// golden.json.
  const Config& notes() const { return notes_; }

  bool has(const std::string& name) const { return golden_.has(name); }
  /// A golden tensor, as f32.
  Tensor get(const std::string& name) const { return golden_.get(name).to_f32(); }
  Tensor get_raw(const std::string& name) const { return golden_.get(name); }
  /// A golden tensor of ids.
  std::vector<std::int32_t> ids(const std::string& name) const {
    const std::vector<float> values = get(name).to_vector();
    return {values.begin(), values.end()};
  }

  /// EXPECT_TRUE(c.matches("hidden.2", x)): the message names case and stage.
  ::testing::AssertionResult matches(const std::string& stage, const Tensor& actual,
                                     double tolerance = 1e-4) const {
    if (!has(stage))
      return ::testing::AssertionFailure() << name_ << ": golden.safetensors has no " << stage;
    const ::testing::AssertionResult result = close_to(actual, get(stage), tolerance);
    if (result) return result;
    return ::testing::AssertionFailure() << name_ << ": " << stage << ": " << result.message();
  }

  std::vector<Generated> generated() const {
    std::vector<Generated> out;
    if (!notes_.has("generate")) return out;
    const Config list = notes_.at("generate");
    for (std::size_t i = 0; i < list.size(); ++i) out.push_back(read(list[i]));
    return out;
  }

 private:
  static Generated read(const Config& entry) {
    Generated g;
    g.name = entry.string("name");
    g.prompt = to_ids(entry.integers("prompt"));
    g.options = entry.child("options");
    g.ids = to_ids(entry.integers("ids"));
    g.entry = entry;
    if (entry.has("hypotheses")) {
      const Config list = entry.at("hypotheses");
      for (std::size_t i = 0; i < list.size(); ++i)
        g.hypotheses.push_back({to_ids(list[i].integers("ids")), list[i].number("score")});
    }
    return g;
  }

  std::string name_;
  Weights golden_;
  Config notes_;
};

}  // namespace tessera::golden
