#include "audio/fft.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace tessera::audio {
namespace {

struct Complex {
  double re, im;
};
inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
inline Complex operator*(double s, Complex a) { return {s * a.re, s * a.im}; }
inline Complex operator*(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
inline Complex times_minus_i(Complex a) { return {a.im, -a.re}; }

// Transforms of two to five numbers, in place.
inline void butterfly(Complex (&x)[2]) {
  const Complex a = x[0];
  x[0] = a + x[1];
  x[1] = a - x[1];
}

inline void butterfly(Complex (&x)[3]) {
  constexpr double kSin = 0.86602540378443864676;  // of 2 pi / 3
  const Complex sum = x[1] + x[2], turned = kSin * times_minus_i(x[1] - x[2]);
  const Complex middle = x[0] - 0.5 * sum;
  x[0] = x[0] + sum;
  x[1] = middle + turned;
  x[2] = middle - turned;
}

inline void butterfly(Complex (&x)[4]) {
  const Complex a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3];
  const Complex d = times_minus_i(x[1] - x[3]);
  x[0] = a + c;
  x[1] = b + d;
  x[2] = a - c;
  x[3] = b - d;
}

inline void butterfly(Complex (&x)[5]) {
  constexpr double kCos1 = 0.30901699437494742410, kSin1 = 0.95105651629515357212;   // 2 pi / 5
  constexpr double kCos2 = -0.80901699437494742410, kSin2 = 0.58778525229247312917;  // 4 pi / 5
  const Complex sum1 = x[1] + x[4], sum2 = x[2] + x[3];
  const Complex off1 = times_minus_i(x[1] - x[4]), off2 = times_minus_i(x[2] - x[3]);
  const Complex a = x[0] + kCos1 * sum1 + kCos2 * sum2, b = kSin1 * off1 + kSin2 * off2;
  const Complex c = x[0] + kCos2 * sum1 + kCos1 * sum2, d = kSin2 * off1 - kSin1 * off2;
  x[0] = x[0] + sum1 + sum2;
  x[1] = a + b;
  x[2] = c + d;
  x[3] = c - d;
  x[4] = a - b;
}

// What a stage reads and writes; rows of `span` numbers that are treated alike.
struct Pass {
  std::int64_t groups, span;
  const double *twiddle_re, *twiddle_im;
  const double *in_re, *in_im;
  double *out_re, *out_im;
};

// Row (group + groups * j) in, row (group * radix + j) out. The innermost loop runs along a row,
// without dependencies.
template <int kRadix>
void run(const Pass& pass) {
  const std::int64_t span = pass.span, step = pass.groups * span;
  for (std::int64_t g = 0; g < pass.groups; ++g) {
    Complex w[kRadix];
    for (int j = 0; j < kRadix; ++j) {
      w[j] = {pass.twiddle_re[g * kRadix + j], pass.twiddle_im[g * kRadix + j]};
    }
    const double* __restrict__ in_re = pass.in_re + g * span;
    const double* __restrict__ in_im = pass.in_im + g * span;
    double* __restrict__ out_re = pass.out_re + g * kRadix * span;
    double* __restrict__ out_im = pass.out_im + g * kRadix * span;
    for (std::int64_t q = 0; q < span; ++q) {
      Complex x[kRadix];
      for (int j = 0; j < kRadix; ++j) x[j] = {in_re[j * step + q], in_im[j * step + q]};
      butterfly(x);
      for (int j = 0; j < kRadix; ++j) {
        const Complex y = x[j] * w[j];
        out_re[j * span + q] = y.re;
        out_im[j * span + q] = y.im;
      }
    }
  }
}

// Any radix, by the definition.
void run_any(std::int64_t radix, const double* root_re, const double* root_im, const Pass& pass) {
  const std::int64_t span = pass.span;
  for (std::int64_t g = 0; g < pass.groups; ++g) {
    for (std::int64_t j = 0; j < radix; ++j) {
      double* out_re = pass.out_re + (g * radix + j) * span;
      double* out_im = pass.out_im + (g * radix + j) * span;
      std::fill_n(out_re, span, 0.0);
      std::fill_n(out_im, span, 0.0);
      const Complex turn{pass.twiddle_re[g * radix + j], pass.twiddle_im[g * radix + j]};
      for (std::int64_t k = 0; k < radix; ++k) {
        const std::int64_t at = (j * k) % radix;
        const Complex w = Complex{root_re[at], root_im[at]} * turn;
        const double* in_re = pass.in_re + (g + pass.groups * k) * span;
        const double* in_im = pass.in_im + (g + pass.groups * k) * span;
        for (std::int64_t q = 0; q < span; ++q) {
          const Complex y = Complex{in_re[q], in_im[q]} * w;
          out_re[q] += y.re;
          out_im[q] += y.im;
        }
      }
    }
  }
}

// Fours first, then twos, threes, fives and whatever primes are left.
std::vector<std::int64_t> factors(std::int64_t n) {
  std::vector<std::int64_t> out;
  for (; n % 4 == 0; n /= 4) out.push_back(4);
  for (std::int64_t p = 2; n > 1; ++p) {
    if (p * p > n) p = n;
    for (; n % p == 0; n /= p) out.push_back(p);
  }
  return out;
}

// e^(-2 pi i k / n)
Complex root(std::int64_t k, std::int64_t n) {
  const double angle = -2 * std::numbers::pi * static_cast<double>(k % n) / static_cast<double>(n);
  return {std::cos(angle), std::sin(angle)};
}

}  // namespace

Fft::Fft(std::int64_t n) : n_(n) {
  std::int64_t length = n;
  for (const std::int64_t radix : factors(n)) {
    Stage stage{radix, length / radix, {}, {}, {}, {}};
    for (std::int64_t g = 0; g < stage.groups; ++g) {
      for (std::int64_t j = 0; j < radix; ++j) {
        const Complex w = root(j * g, length);
        stage.twiddle_re.push_back(w.re);
        stage.twiddle_im.push_back(w.im);
      }
    }
    for (std::int64_t j = 0; j < radix; ++j) {
      const Complex w = root(j, radix);
      stage.root_re.push_back(w.re);
      stage.root_im.push_back(w.im);
    }
    stages_.push_back(std::move(stage));
    length /= radix;
  }
}

void Fft::operator()(std::int64_t count, double* re, double* im, double* work_re,
                     double* work_im) const {
  Pass pass{0, count, nullptr, nullptr, re, im, work_re, work_im};
  for (const Stage& stage : stages_) {
    pass.groups = stage.groups;
    pass.twiddle_re = stage.twiddle_re.data();
    pass.twiddle_im = stage.twiddle_im.data();
    switch (stage.radix) {
      case 2:
        run<2>(pass);
        break;
      case 3:
        run<3>(pass);
        break;
      case 4:
        run<4>(pass);
        break;
      case 5:
        run<5>(pass);
        break;
      default:
        run_any(stage.radix, stage.root_re.data(), stage.root_im.data(), pass);
    }
    pass.span *= stage.radix;
    const double *done_re = pass.out_re, *done_im = pass.out_im;
    pass.out_re = const_cast<double*>(pass.in_re);
    pass.out_im = const_cast<double*>(pass.in_im);
    pass.in_re = done_re;
    pass.in_im = done_im;
  }
  if (pass.in_re != re) {
    std::copy_n(pass.in_re, n_ * count, re);
    std::copy_n(pass.in_im, n_ * count, im);
  }
}

}  // namespace tessera::audio
