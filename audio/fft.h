#pragma once
#include <cstdint>
#include <vector>

namespace tessera::audio {

/// The discrete Fourier transform of complex signals of length n, several at once: X[k] = sum of
/// x[t] e^(-2 pi i k t / n). Mixed radix 4, 2, 3, 5; other prime factors p cost p per point. Const
/// and shared. Private to audio/.
class Fft {
 public:
  explicit Fft(std::int64_t n);
  std::int64_t size() const { return n_; }

  /// `count` signals side by side: number t of signal s lies at [t * count + s] of `re` and `im`,
  /// which take the result in the same order. `work_re` and `work_im` are scratch of n * count
  /// numbers each.
  void operator()(std::int64_t count, double* re, double* im, double* work_re,
                  double* work_im) const;

 private:
  // One pass of Stockham's algorithm: joins `radix` shorter transforms.
  struct Stage {
    std::int64_t radix;
    std::int64_t groups;  // n / (radix * all earlier radices)
    // e^(-2 pi i j g / (radix * groups)) at [g * radix + j], and e^(-2 pi i j / radix) at [j]
    std::vector<double> twiddle_re, twiddle_im, root_re, root_im;
  };
  std::int64_t n_;
  std::vector<Stage> stages_;
};

}  // namespace tessera::audio
