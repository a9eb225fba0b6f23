// Weights to 4 bits; see integer.h.
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

constexpr std::int64_t kGroupVectors = kGroup / kLanes;

TESSERA_INLINE float rounded_to_bf16(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

/// A group, how much the error of each number counts, and the best that was found for it.
class NibbleSearch {
 public:
  TESSERA_INLINE explicit NibbleSearch(const float* x) {
    Vec low{}, high{}, squares{};
    for (std::int64_t v = 0; v < kGroupVectors; ++v) {
      x_[v] = load(x + v * kLanes);
      low = x_[v] < low ? x_[v] : low;
      high = larger(x_[v], high);
      squares += x_[v] * x_[v];
    }
    bottom_ = -max_of(-low);
    range_ = max_of(high) - bottom_;
    const float mean = __builtin_sqrtf(quick_sum_of(squares) / static_cast<float>(kGroup));
    const float unit = mean > 0 ? 1.0f / mean : 0.0f;  // weights of about 1: no overflow
    for (std::int64_t v = 0; v < kGroupVectors; ++v)
      weights_[v] = (x_[v] < 0.0f ? -x_[v] : x_[v]) * unit + 1.0f;
  }

  TESSERA_INLINE bool is_zero() const { return range_ < 1e-30f; }

  /// Levels by scales for a range a little larger than that of the numbers and for shorter ones,
  /// beyond which numbers are clipped: those that fit best with a scale of their own are taken.
  TESSERA_INLINE void try_ranges() {
    constexpr float kFirst = 1.02f, kStep = 0.06f;
    float most = -1, best = 0, best_zero = 0;
    for (std::int64_t i = 0; i < 7; ++i) {
      const float share = kFirst - kStep * static_cast<float>(i),
                  inverse = 15.0f / (range_ * share);
      float zero = __builtin_rintf(-bottom_ * share * inverse);
      zero = zero < 0 ? 0 : zero > 15 ? 15 : zero;
      const Fit fit = fit_of(inverse, zero);
      if (fit.gain() <= most) continue;
      most = fit.gain();
      best = fit.scale();
      best_zero = zero;
    }
    consider(rounded_to_bf16(best), best_zero);
  }

  /// The best scale for the levels that the numbers have now, which then may have others.
  TESSERA_INLINE void refine() {
    const float scale = rounded_to_bf16(fit_of(1.0f / scale_, zero_).scale());
    if (scale > 0) consider(scale, zero_);
  }

  TESSERA_INLINE Nibbles write(std::uint8_t* q) const {
    typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));
    for (std::int64_t v = 0; v < kGroupVectors; ++v) {
      const Bytes levels = __builtin_convertvector(
          __builtin_convertvector(level_of(v, 1.0f / scale_, zero_), IntVec), Bytes);
      __builtin_memcpy(q + v * kLanes, &levels, sizeof levels);
    }
    return {scale_, static_cast<std::uint8_t>(zero_)};
  }

 private:
  TESSERA_INLINE Vec level_of(std::int64_t v, float inverse, float zero) const {
    const Vec round = splat(kIntegersFrom), most = splat(15.0f);
    const Vec level = (x_[v] * inverse + round) - round + zero;
    const Vec bounded = level < 0.0f ? Vec{} : level;
    return bounded > most ? most : bounded;
  }

  /// Of levels L, weighted sums: L x and L L. The best scale is their ratio, and then the error is
  /// less by gain() than without any levels.
  struct Fit {
    float product, square;
    TESSERA_INLINE float scale() const { return square > 0 ? product / square : 0.0f; }
    TESSERA_INLINE float gain() const { return product > 0 ? product * scale() : 0.0f; }
  };
  TESSERA_INLINE Fit fit_of(float inverse, float zero) const {
    Vec products{}, squares{};
    for (std::int64_t v = 0; v < kGroupVectors; ++v) {
      const Vec level = level_of(v, inverse, zero) - zero, weighted = weights_[v] * level;
      products += weighted * x_[v];
      squares += weighted * level;
    }
    return {quick_sum_of(products), quick_sum_of(squares)};
  }

  TESSERA_INLINE void consider(float scale, float zero) {
    Vec errors{};
    const float inverse = 1.0f / scale;
    for (std::int64_t v = 0; v < kGroupVectors; ++v) {
      const Vec off = x_[v] - (level_of(v, inverse, zero) - zero) * scale;
      errors += weights_[v] * off * off;
    }
    const float error = quick_sum_of(errors);
    if (error_ >= 0 && error >= error_) return;
    error_ = error;
    scale_ = scale;
    zero_ = zero;
  }

  Vec x_[kGroupVectors], weights_[kGroupVectors];
  float bottom_, range_;
  float scale_ = 1, zero_ = 8, error_ = -1;
};

Nibbles quantize4(const float* x, std::uint8_t* q) {
  NibbleSearch search(x);
  if (!search.is_zero()) {
    search.try_ranges();
    search.refine();
  }
  return search.write(q);
}

}  // namespace
}  // namespace tessera::kernels
