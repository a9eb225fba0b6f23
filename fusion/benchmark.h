#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/profile.h"
#include "fusion/model.h"

namespace tessera::fusion {

struct BenchmarkOptions {
  int repeat = 5;
  std::int64_t prefill = 512;  ///< tokens; less where the model's context is shorter
  std::int64_t decode = 64;    ///< tokens after them, one a step, each the likeliest
};

/// One kind of work, run several times.
struct Measurement {
  std::string work;   ///< "log-mel", "encode sound", "encode image", "memory", "prefill", "decode"
  std::string unit;   ///< what `amount` counts: "s" of sound, "images", "tokens"
  double amount = 0;  ///< in one run
  std::vector<double> seconds;  ///< of each run
  Profile::Phase stages;        ///< of all runs together
  double median() const;
};

/// Runs all that the model can do, on made-up input: a window of sound, an image of the tower's
/// size, a prompt of random tokens. Every run but a first one, which is not counted, is measured.
/// Throws ArgumentError for options out of range.
std::vector<Measurement> benchmark(Context& ctx, const Model& model,
                                   const BenchmarkOptions& options);

}  // namespace tessera::fusion
