#include "fusion/benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "core/error.h"

namespace tessera::fusion {
namespace {

/// The profile of a context for as long as this lives.
class Profiled {
 public:
  explicit Profiled(Context& ctx) : ctx_(ctx), before_(ctx.profile) { ctx.profile = &profile_; }
  ~Profiled() { ctx_.profile = before_; }
  Profiled(const Profiled&) = delete;
  Profiled& operator=(const Profiled&) = delete;
  Profile::Phase phase() const { return profile_.phases().front(); }

 private:
  Context& ctx_;
  Profile* before_;
  Profile profile_;
};

class Benchmark {
 public:
  Benchmark(Context& ctx, const Model& model, const BenchmarkOptions& options)
      : ctx_(ctx), model_(model), options_(options) {}

  std::vector<Measurement> run() {
    if (model_.audio && model_.log_mel) sound();
    if (model_.vision && model_.image_processor) image();
    if (model_.decoder) text();
    return std::move(out_);
  }

 private:
  void measure(const std::string& work, const std::string& unit, double amount,
               const std::function<void()>& once, const std::function<void()>& before = {}) {
    Measurement m{work, unit, amount, {}, {}};
    if (before) before();
    once();
    const Profiled profiled(ctx_);
    for (int i = 0; i < options_.repeat; ++i) {
      if (before) before();
      const auto start = std::chrono::steady_clock::now();
      {
        const PhaseScope phase(ctx_, work);
        once();
      }
      m.seconds.push_back(seconds_since(start));
    }
    m.stages = profiled.phase();
    out_.push_back(std::move(m));
  }

  void sound() {
    std::vector<float> samples(static_cast<std::size_t>(model_.log_mel->samples_per_window()));
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto t = static_cast<double>(i) / audio::kSampleRate;
      samples[i] = static_cast<float>(0.3 * std::sin(2 * 3.14159 * 300 * t * (1 + 0.1 * t)));
    }
    const double seconds = static_cast<double>(samples.size()) / audio::kSampleRate;
    Tensor mel;
    measure("log-mel", "s", seconds, [&] { mel = (*model_.log_mel)(ctx_, samples); });
    measure("encode sound", "s", seconds, [&] { memory_ = model_.encode_frames(ctx_, mel); });
  }

  void image() {
    vision::Image image{640, 480, std::vector<std::uint8_t>(3 * 640 * 480)};
    for (std::size_t i = 0; i < image.pixels.size(); ++i)
      image.pixels[i] = static_cast<std::uint8_t>(i * 7 % 251);
    Tensor pixels;
    measure("preprocess image", "images", 1, [&] { pixels = model_.preprocess(ctx_, image); });
    measure("encode image", "images", 1, [&] {
      const Tensor rows = model_.encode_pixels(ctx_, pixels);
      if (!model_.audio) memory_ = rows;
    });
  }

  void text() {
    const text::LanguageModel& decoder = *model_.decoder;
    const std::int64_t most = decoder.max_positions();
    const std::int64_t decode = std::min(options_.decode, most - 1);
    const std::int64_t prefill = std::min(options_.prefill, most - decode);
    KvCache cache = decoder.new_cache();
    if (decoder.has_cross_attention() && memory_) {
      measure("memory", "tokens", static_cast<double>(memory_.dim(0)),
              [&] { decoder.set_memory(ctx_, memory_, cache); });
    }
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < prefill; ++i)
      ids.push_back(static_cast<std::int32_t>(i * 7919 % decoder.vocab_size()));
    std::int32_t next = 0;
    const auto run = [&](std::span<const std::int32_t> tokens) {
      const text::Sequence sequence{&cache, std::ssize(tokens)};
      const Tensor hidden = decoder.forward(ctx_, decoder.embed(ctx_, tokens),
                                            std::span(&sequence, 1), text::Outputs::last_rows);
      const Tensor logits = decoder.logits(ctx_, hidden);
      next = text::argmax({logits.data(), static_cast<std::size_t>(logits.numel())});
    };
    measure(
        "prefill", "tokens", static_cast<double>(prefill), [&] { run(ids); },
        [&] { cache.truncate(0); });
    measure(
        "decode", "tokens", static_cast<double>(decode),
        [&] {
          for (std::int64_t i = 0; i < decode; ++i) run(std::vector<std::int32_t>{next});
        },
        [&] { cache.truncate(prefill); });
  }

  Context& ctx_;
  const Model& model_;
  const BenchmarkOptions& options_;
  Tensor memory_;
  std::vector<Measurement> out_;
};

}  // namespace

double Measurement::median() const {
  std::vector<double> sorted = seconds;
  std::ranges::sort(sorted);
  const std::size_t n = sorted.size();
  return n == 0 ? 0 : (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

std::vector<Measurement> benchmark(Context& ctx, const Model& model,
                                   const BenchmarkOptions& options) {
  if (options.repeat < 1 || options.prefill < 1 || options.decode < 1) {
    throw ArgumentError(concat("benchmark: repeat ", options.repeat, ", prefill ", options.prefill,
                               ", decode ", options.decode, "; expected at least 1 of each"));
  }
  return Benchmark(ctx, model, options).run();
}

}  // namespace tessera::fusion
