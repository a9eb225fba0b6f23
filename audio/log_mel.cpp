#include "audio/log_mel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "audio/fft.h"
#include "audio/mel_filters.h"
#include "audio/sound.h"
#include "core/error.h"
#include "core/profile.h"

namespace tessera::audio {
namespace {

constexpr double kFloor = 1e-10;                 // of mel energies
constexpr float kFloorLog = -10;                 // its log10
constexpr float kRange = 8;                      // decades kept below the loudest
constexpr std::int64_t kLanes = LogMel::kGroup;  // frames at a time
constexpr std::int64_t kPairs =
    kLanes / 2;  // they are transformed in pairs, as real and imaginary part
constexpr std::int64_t kBlock = 8 * kLanes;  // frames a task

constexpr std::int64_t kMaxNumbers = 1 << 27;  // of a window

// Samples with zeros before and after them, of `length` in all, mirrored at both ends without
// repeating the outermost sample.
struct Signal : LogMel::Piece {
  std::int64_t end() const { return begin + static_cast<std::int64_t>(samples.size()); }
  double at(std::int64_t i) const {
    const std::int64_t period = std::max<std::int64_t>(2 * (length - 1), 1);
    i = ((i % period) + period) % period;
    if (i >= length) i = period - i;
    return i >= begin && i < end()
               ? static_cast<double>(samples[static_cast<std::size_t>(i - begin)])
               : 0;
  }
};

}  // namespace

struct LogMel::Impl {
  std::int64_t mels, hop, window_samples;
  Fft fft;
  MelFilters filters;
  std::vector<double> window;  // Hann, periodic

  Impl(const Config& config);
  std::int64_t n() const { return fft.size(); }
  std::int64_t bins() const { return n() / 2 + 1; }
  // Whole hops: HF computes one frame more and drops it.
  std::int64_t frames(std::int64_t samples) const {
    return std::max<std::int64_t>((samples + 2 * (n() / 2) - n()) / hop, 0);
  }

  Tensor compute(Context& ctx, const Signal& signal) const;
  // log10 of the energies of frames [first, first + count) to `out`; returns the highest.
  float energies(Context& ctx, const Signal& signal, std::int64_t first, std::int64_t count,
                 float* out) const;
  // From these to what the model reads.
  static void scale(Context& ctx, float loudest, Tensor& out);

 private:
  struct Scratch {
    std::vector<double> re, im, work_re, work_im, power;
    explicit Scratch(std::int64_t n);
  };
  std::int64_t sounding_frames(const Signal& signal) const;
  void fill(const Signal& signal, std::int64_t frame, double* to) const;
  void log_energies(const Signal& signal, std::int64_t frame, std::int64_t count, Scratch& scratch,
                    float* out) const;
  void powers(Scratch& scratch) const;
};

LogMel::Impl::Scratch::Scratch(std::int64_t n)
    : re(static_cast<std::size_t>(n * kPairs)),
      im(re.size()),
      work_re(re.size()),
      work_im(re.size()),
      power(static_cast<std::size_t>((n / 2 + 1) * kLanes)) {}

LogMel::Impl::Impl(const Config& config)
    : mels(config.bounded("feature_size", 80, 1, 1024)),
      hop(config.bounded("hop_length", 160, 1, 1 << 16)),
      window_samples(config.bounded("chunk_length", 30, 1, 3600) * kSampleRate),
      fft(config.bounded("n_fft", 400, 4, 1 << 14)),
      filters(mels, bins(), kSampleRate) {
  if (const std::int64_t rate = config.integer("sampling_rate", kSampleRate); rate != kSampleRate) {
    throw UnsupportedError(concat(config.where(), ": sampling_rate is ", rate,
                                  "; sound is always at ", kSampleRate, " Hz"));
  }
  if (config.number("dither", 0) != 0 || config.number("padding_value", 0) != 0) {
    throw UnsupportedError(concat(config.where(), ": dither and padding_value can only be 0"));
  }
  if (frames(window_samples) * mels > kMaxNumbers) {
    throw FormatError(concat(config.where(), ": a window of ", frames(window_samples),
                             " frames of ", mels, " mels; expected at most ", kMaxNumbers,
                             " numbers"));
  }
  for (std::int64_t i = 0; i < n(); ++i) {
    window.push_back(0.5 - 0.5 * std::cos(2 * std::numbers::pi * static_cast<double>(i) /
                                          static_cast<double>(n())));
  }
}

// Frames before this one may hear something; it and all later ones are silent.
std::int64_t LogMel::Impl::sounding_frames(const Signal& signal) const {
  const std::int64_t heard = signal.end(), all = frames(signal.length);
  if (heard + n() > signal.length) return all;  // the end may be mirrored into the last ones
  return std::min(all, (heard + n() / 2 + hop - 1) / hop);
}

// The windowed samples of a frame, to every kPairs-th place.
void LogMel::Impl::fill(const Signal& signal, std::int64_t frame, double* to) const {
  const std::int64_t start = frame * hop - n() / 2;
  if (start >= signal.begin && start + n() <= signal.end()) {
    const float* from = signal.samples.data() + (start - signal.begin);
    for (std::int64_t i = 0; i < n(); ++i)
      to[i * kPairs] = window[static_cast<std::size_t>(i)] * static_cast<double>(from[i]);
  } else {
    for (std::int64_t i = 0; i < n(); ++i)
      to[i * kPairs] = window[static_cast<std::size_t>(i)] * signal.at(start + i);
  }
}

// |X|^2 of kLanes frames from the transforms of kPairs pairs a + ib: A[k] and B[k] are the even and
// the odd part.
void LogMel::Impl::powers(Scratch& scratch) const {
  for (std::int64_t k = 0; k < bins(); ++k) {
    const std::int64_t mirror = (n() - k) % n();
    const double *re = &scratch.re[static_cast<std::size_t>(k * kPairs)],
                 *im = &scratch.im[static_cast<std::size_t>(k * kPairs)];
    const double *re2 = &scratch.re[static_cast<std::size_t>(mirror * kPairs)],
                 *im2 = &scratch.im[static_cast<std::size_t>(mirror * kPairs)];
    double* power = &scratch.power[static_cast<std::size_t>(k * kLanes)];
    for (std::int64_t p = 0; p < kPairs; ++p) {
      const double a_re = re[p] + re2[p], a_im = im[p] - im2[p];
      const double b_re = im[p] + im2[p], b_im = re2[p] - re[p];
      power[p] = 0.25 * (a_re * a_re + a_im * a_im);
      power[kPairs + p] = 0.25 * (b_re * b_re + b_im * b_im);
    }
  }
}

// log10 of the mel energies of `count` (at most kLanes) frames from `frame` on -> out [count, mels]
void LogMel::Impl::log_energies(const Signal& signal, std::int64_t frame, std::int64_t count,
                                Scratch& scratch, float* out) const {
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    double* to = (lane < kPairs ? scratch.re.data() : scratch.im.data()) + lane % kPairs;
    if (lane < count) {
      fill(signal, frame + lane, to);
    } else {
      for (std::int64_t i = 0; i < n(); ++i) to[i * kPairs] = 0;
    }
  }
  fft(kPairs, scratch.re.data(), scratch.im.data(), scratch.work_re.data(), scratch.work_im.data());
  powers(scratch);
  for (std::int64_t m = 0; m < mels; ++m) {
    const MelFilters::Filter& filter = filters.filters[static_cast<std::size_t>(m)];
    std::array<double, kLanes> energy{};
    const double* power = scratch.power.data() + filter.first * kLanes;
    for (const double weight : filter.weights) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) energy[lane] += weight * power[lane];
      power += kLanes;
    }
    for (std::int64_t lane = 0; lane < count; ++lane) {
      const double log = std::log2(std::max(energy[static_cast<std::size_t>(lane)], kFloor));
      out[lane * mels + m] = static_cast<float>(log * (std::numbers::ln2 / std::numbers::ln10));
    }
  }
}

float LogMel::Impl::energies(Context& ctx, const Signal& signal, std::int64_t first,
                             std::int64_t count, float* out) const {
  const std::int64_t sounding = std::clamp(sounding_frames(signal) - first, std::int64_t{0}, count);
  const std::int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<float> loudest(static_cast<std::size_t>(blocks), kFloorLog);
  ctx.parallel_for(blocks, [&](std::int64_t block) {
    Scratch scratch(n());
    const std::int64_t begin = block * kBlock, end = std::min(begin + kBlock, count);
    for (std::int64_t f = begin; f < std::min(end, sounding); f += kLanes) {
      log_energies(signal, first + f, std::min({kLanes, end - f, sounding - f}), scratch,
                   out + f * mels);
    }
    std::fill(out + std::clamp(sounding, begin, end) * mels, out + end * mels, kFloorLog);
    loudest[static_cast<std::size_t>(block)] =
        *std::max_element(out + begin * mels, out + end * mels);
  });
  return loudest.empty() ? kFloorLog : *std::max_element(loudest.begin(), loudest.end());
}

void LogMel::Impl::scale(Context& ctx, float loudest, Tensor& out) {
  constexpr std::int64_t kPiece = 1 << 14;
  const float least = loudest - kRange;
  float* data = out.data();
  in_pieces(ctx, out.numel(), kPiece, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) data[i] = (std::max(data[i], least) + 4) / 4;
  });
}

Tensor LogMel::Impl::compute(Context& ctx, const Signal& signal) const {
  const StageScope scope(ctx, "log-mel");
  Tensor out = ctx.empty({frames(signal.length), mels});
  scale(ctx, energies(ctx, signal, 0, out.dim(0), out.data()), out);
  return out;
}

LogMel::LogMel(const Config& preprocessor_config)
    : impl_(std::make_shared<Impl>(preprocessor_config)) {}

Tensor LogMel::operator()(Context& ctx, std::span<const float> samples) const {
  const std::int64_t length = impl_->window_samples;
  const auto used = std::min(samples.size(), static_cast<std::size_t>(length));
  return impl_->compute(ctx, {{samples.first(used), 0, length}});
}

Tensor LogMel::whole(Context& ctx, std::span<const float> samples) const {
  const auto length = static_cast<std::int64_t>(samples.size());
  if (impl_->frames(length) < 1) {
    throw ArgumentError(concat("log-mel: ", length, " samples are less than one frame of ", hop()));
  }
  return impl_->compute(ctx, {{samples, 0, length}});
}

float LogMel::loudest(Context& ctx, const Piece& piece, std::int64_t first,
                      std::int64_t count) const {
  const StageScope scope(ctx, "log-mel");
  Tensor logs = ctx.empty({count, mels()});
  return impl_->energies(ctx, {piece}, first, count, logs.data());
}

Tensor LogMel::part(Context& ctx, const Piece& piece, std::int64_t first, std::int64_t count,
                    float loudest) const {
  const StageScope scope(ctx, "log-mel");
  Tensor out = ctx.empty({count, mels()});
  impl_->energies(ctx, {piece}, first, count, out.data());
  Impl::scale(ctx, loudest, out);
  return out;
}

std::int64_t LogMel::frames_of(std::int64_t samples) const { return impl_->frames(samples); }
std::int64_t LogMel::mels() const { return impl_->mels; }
std::int64_t LogMel::frames() const { return impl_->frames(impl_->window_samples); }
std::int64_t LogMel::samples_per_window() const { return impl_->window_samples; }
std::int64_t LogMel::hop() const { return impl_->hop; }
std::int64_t LogMel::n_fft() const { return impl_->n(); }

}  // namespace tessera::audio
