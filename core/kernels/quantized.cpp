#include "core/kernels/quantized.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/task_groups.h"

namespace tessera::kernels {
namespace {

std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

const IntegerKernels& kernels() { return vector_kernels().integer; }

/// Largest integer of an activation: 11 or 7 bits and a sign, less where the sums of k products
/// with 8 bits could leave 32 bits.
float activation_limit(std::int64_t k) {
  constexpr double kLargestSum = 2147483647.0;
  const bool bytes = kernels().depth == 4;
  const double largest_weight = bytes ? 255.0 : 128.0;
  return static_cast<float>(std::floor(
      std::min(bytes ? 127.0 : 2047.0, kLargestSum / (largest_weight * static_cast<double>(k)))));
}

/// The nearest integer (ties to even), of numbers below 2^22; without a call for each.
float nearest(float x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  return x + kShift - kShift;
}

/// Calls work(first, count) for every panel of columns, on all cores where the matrix is large.
template <class Work>
void for_panels(std::int64_t n, std::int64_t k, std::int64_t columns, const Work& work) {
  constexpr std::int64_t kLarge = 1 << 18;
  Context ctx({.threads = n * k < kLarge ? 1 : 0});
  in_pieces(ctx, n, columns,
            [&](std::int64_t first, std::int64_t end) { work(first, end - first); });
}

/// A panel of columns, `depth` numbers of each side by side, from `count` of them; `filling` for
/// what is missing. `size`: bytes of a number.
void fill_panel(const std::uint8_t* const* rows, std::int64_t count, std::int64_t columns,
                std::int64_t depth, std::int64_t size, std::int64_t k, std::uint8_t* to) {
  const std::int64_t piece = depth * size;
  for (std::int64_t c = 0; c < k; c += depth, to += columns * piece) {
    const auto bytes = static_cast<std::size_t>(std::min(depth, k - c) * size);
    std::memset(to, 0, static_cast<std::size_t>(columns * piece));
    for (std::int64_t j = 0; j < count; ++j) std::memcpy(to + j * piece, rows[j] + c * size, bytes);
  }
}

}  // namespace

void check_finite(const std::string& name, std::int64_t row, const float* x, std::int64_t n) {
  bool any = false;
  for (std::int64_t i = 0; i < n; ++i)
    any |= !(std::abs(x[i]) <= std::numeric_limits<float>::max());
  for (std::int64_t i = 0; any && i < n; ++i) {
    if (std::isfinite(x[i])) continue;
    throw FormatError(concat(name, ": row ", row, " holds ", x[i], " at ", i,
                             "; only finite numbers can be rounded to 8 or 4 bits"));
  }
}

float quantize8(const float* x, std::int64_t k, std::int8_t* q) {
  float most = 0;
  for (std::int64_t i = 0; i < k; ++i) most = std::max(most, std::abs(x[i]));
  if (most < 1e-30f) {
    std::fill_n(q, k, std::int8_t{0});
    return 0;
  }
  const float inverse = 127.0f / most;
  for (std::int64_t i = 0; i < k; ++i)
    q[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(nearest(x[i] * inverse)));
  return most / 127.0f;
}

Nibbles quantize4(const float* x, std::uint8_t* q) { return kernels().quantize4(x, q); }

QuantizedMatrix QuantizedMatrix::pack(const StackedMatrix& source, int bits) {
  QuantizedMatrix m;
  m.bits_ = bits;
  m.n_ = source.n();
  m.k_ = source.k();
  if (bits == 16) {
    m.pack16(source);
  } else if (bits == 8) {
    m.pack8(source);
  } else {
    m.pack4(source);
  }
  return m;
}

std::int64_t QuantizedMatrix::bytes() const {
  return static_cast<std::int64_t>(data_.nbytes() + (scales_ ? scales_.nbytes() : 0));
}

std::int64_t QuantizedMatrix::scales_at() const { return round_up(n_, columns()) * padded_k_ / 2; }
std::int64_t QuantizedMatrix::zeros_at() const {
  return scales_at() + round_up(n_, columns()) * padded_k_ / kGroup * 2;
}

void QuantizedMatrix::pack16(const StackedMatrix& source) {
  const auto& half = vector_kernels().half;
  const std::int64_t columns = half.columns;
  padded_k_ = round_up(k_, 2);
  data_ = Tensor::empty({round_up(n_, columns), padded_k_}, DType::bf16);
  for_panels(n_, k_, columns, [&](std::int64_t first, std::int64_t count) {
    std::vector<float> row(static_cast<std::size_t>(k_));
    std::vector<std::uint16_t> numbers(static_cast<std::size_t>(columns * k_));
    std::vector<const std::uint8_t*> rows(static_cast<std::size_t>(columns));
    for (std::int64_t j = 0; j < count; ++j) {
      const auto [part, at] = source.find(first + j);
      const std::uint16_t* own = numbers.data() + j * k_;
      if (part->weight.dtype() == DType::bf16 && part->weight.is_contiguous()) {
        own = part->weight.data<std::uint16_t>() + at * k_;
      } else {
        part->row(at, row.data());
        half.round_row(row.data(), k_, k_, numbers.data() + j * k_);
      }
      rows[static_cast<std::size_t>(j)] = reinterpret_cast<const std::uint8_t*>(own);
    }
    fill_panel(rows.data(), count, columns, 2, 2, k_,
               reinterpret_cast<std::uint8_t*>(data_.data<std::uint16_t>() + first * padded_k_));
  });
}

void QuantizedMatrix::pack8(const StackedMatrix& source) {
  const std::int64_t columns = kernels().columns, depth = kernels().depth,
                     padded_n = round_up(n_, columns);
  padded_k_ = round_up(k_, depth);
  data_ = Tensor::empty({padded_n, padded_k_}, DType::u8);
  scales_ = Tensor::zeros({padded_n});
  for_panels(n_, k_, columns, [&](std::int64_t first, std::int64_t count) {
    std::vector<float> row(static_cast<std::size_t>(k_));
    std::vector<std::int8_t> numbers(static_cast<std::size_t>(columns * k_));
    std::vector<const std::uint8_t*> rows(static_cast<std::size_t>(columns));
    for (std::int64_t j = 0; j < count; ++j) {
      const auto [part, at] = source.find(first + j);
      const std::int8_t* own = numbers.data() + j * k_;
      if (part->weight.dtype() == DType::i8 && part->weight.is_contiguous()) {
        own = part->weight.data<std::int8_t>() + at * k_;
        scales_.data()[first + j] = part->scales.data()[at];
        check_finite(part->name, at, part->scales.data() + at, 1);
      } else {
        part->row(at, row.data());
        check_finite(part->name, at, row.data(), k_);
        scales_.data()[first + j] = quantize8(row.data(), k_, numbers.data() + j * k_);
      }
      rows[static_cast<std::size_t>(j)] = reinterpret_cast<const std::uint8_t*>(own);
    }
    std::uint8_t* panel = data_.data<std::uint8_t>() + first * padded_k_;
    fill_panel(rows.data(), count, columns, depth, 1, k_, panel);
    if (depth == 4) {
      for (std::int64_t i = 0; i < columns * padded_k_; ++i) panel[i] ^= 128u;  // adds 128
    }
  });
}

void QuantizedMatrix::pack4(const StackedMatrix& source) {
  const std::int64_t columns = kernels().columns, depth = kernels().depth,
                     padded_n = round_up(n_, columns);
  padded_k_ = round_up(k_, kGroup);
  const std::int64_t groups = padded_k_ / kGroup;
  data_ = Tensor::zeros({padded_n, padded_k_ / 2 + groups * 3}, DType::u8);
  auto* scales = reinterpret_cast<std::uint16_t*>(data_.data<std::uint8_t>() + scales_at());
  std::uint8_t* zeros = data_.data<std::uint8_t>() + zeros_at();
  std::array<std::int64_t, 8> bits{};  // of the numbers of a word, see integer.h
  for (std::int64_t i = 0; i < 8; ++i)
    bits[static_cast<std::size_t>(i)] = 32 / depth * (i % depth) + i / depth * 4;
  for_panels(n_, k_, columns, [&](std::int64_t first, std::int64_t count) {
    std::vector<float> row(static_cast<std::size_t>(padded_k_));
    std::vector<std::uint8_t> numbers(row.size());
    auto* words =
        reinterpret_cast<std::uint32_t*>(data_.data<std::uint8_t>()) + first * padded_k_ / 8;
    for (std::int64_t j = 0; j < count; ++j) {
      const auto [part, at] = source.find(first + j);
      const bool as_stored = part->bits == 4 && part->group() == kGroup;
      if (as_stored) {
        part->nibbles(at, numbers.data());
      } else {
        part->row(at, row.data());
        check_finite(part->name, at, row.data(), k_);
      }
      for (std::int64_t g = 0; g < groups; ++g) {
        std::uint8_t* q = numbers.data() + g * kGroup;
        const Nibbles n = as_stored
                              ? Nibbles{part->scales.data()[at * groups + g], part->zero(at, g)}
                              : quantize4(row.data() + g * kGroup, q);
        const std::int64_t place = first * groups + g * columns + j;
        scales[place] = f32_to_bf16(n.scale);
        zeros[place] = n.zero;
        for (std::int64_t w = 0; w < kGroup / 8; ++w) {
          std::uint32_t word = 0;
          for (std::int64_t i = 0; i < 8; ++i)
            word |= static_cast<std::uint32_t>(q[8 * w + i]) << bits[static_cast<std::size_t>(i)];
          words[(g * kGroup / 8 + w) * columns + j] = word;
        }
      }
    }
  });
}

/// One product: rounds the rows, then computes tiles of rows and columns.
class PanelProduct {
 public:
  /// Numbers of 16 bits that a tile sums at a time: rows and panels of a task fit the second-level
  /// cache.
  static constexpr std::int64_t kRun = 2048;
  /// Products of so many read each weight once, and round activations less.
  static constexpr std::int64_t kMostFewRows = 8;

  PanelProduct(Context& ctx, const QuantizedMatrix& weight, const MatmulArguments& a)
      : ctx_(ctx), w_(weight), a_(a), columns_(weight.columns()) {
    // 8 bits: what offset weights add has to be taken off (integer.h)
    groups_ = w_.bits_ == 4 ? w_.padded_k_ / kGroup : w_.bits_ == 8 && kernels().depth == 4 ? 1 : 0;
    if (w_.bits_ != 16 && a_.m <= kMostFewRows && kernels().quantize_fine) parts_ = 2;
    rows_ = ctx_.empty({a_.m * parts_, row_step() * row_bytes()}, DType::u8);
    if (w_.bits_ != 16) units_ = ctx_.empty({a_.m * parts_});
    if (groups_) sums_ = ctx_.empty({a_.m * parts_, groups_}, DType::i32);
  }

  void run() {
    if (a_.m <= kMostFewRows) {
      round_rows(0, a_.m);
      few_rows();
    } else {
      many_rows();
    }
  }

 private:
  std::int64_t panels() const { return (w_.n_ + columns_ - 1) / columns_; }
  /// Bytes of a rounded number of a row.
  std::int64_t row_bytes() const { return w_.bits_ != 16 && kernels().depth == 4 ? 1 : 2; }

  /// Numbers from a rounded row to the next: an odd number of cache lines, for rows that lie a
  /// power of two apart would drive each other out of the first-level cache. The two parts of a row
  /// follow each other at once.
  std::int64_t row_step() const {
    constexpr std::int64_t kLine = 64;
    if (parts_ == 2) return w_.padded_k_;
    const std::int64_t lines = (w_.padded_k_ * row_bytes() + kLine - 1) / kLine;
    return (lines | 1) * kLine / row_bytes();
  }

  void round_rows(std::int64_t begin, std::int64_t end) {
    Tensor normal;
    // Few long ones, for they are gone through up to four times.
    const std::int64_t at_once = w_.k_ > 1024 ? kRowsRounded / 2 : kRowsRounded;
    if (a_.norm) normal = ctx_.empty({at_once, w_.k_});
    for (std::int64_t r = begin; r < end; r += at_once) {
      const std::int64_t m = std::min(at_once, end - r);
      if (w_.bits_ == 16 || parts_ == 2) {
        for (std::int64_t i = r; i < r + m; ++i) round_alone(i, normal);
      } else {
        quantize(r, m, normal);
      }
      if (groups_) sum_groups(r * parts_, m * parts_);
    }
  }

  /// One row as bf16 numbers or in two parts.
  void round_alone(std::int64_t r, Tensor& normal) {
    const float* x = a_.x + r * a_.ldx;
    if (a_.norm) {
      const auto& [weight, bias, eps] = *a_.norm;
      vector_kernels().layer_norm(x, weight, bias, eps, w_.k_, normal.data());
      x = normal.data();
    }
    if (w_.bits_ == 16) return vector_kernels().half.round_row(x, w_.k_, w_.padded_k_, half_row(r));
    float* units = units_.data() + r * parts_;
    units[1] = kernels().quantize_fine(x, w_.k_, w_.padded_k_, activation_limit(w_.padded_k_),
                                       row(r * parts_));
    units[0] = units[1] * (1 << kLowBits);
  }

  void quantize(std::int64_t r, std::int64_t m, Tensor& normal) {
    RoundedRows rows{.m = m,
                     .x = a_.x + r * a_.ldx,
                     .ldx = a_.ldx,
                     .k = w_.k_,
                     .padded = w_.padded_k_,
                     .limit = activation_limit(w_.padded_k_),
                     .q = row(r),
                     .ldq = row_step(),
                     .units = units_.data() + r};
    if (a_.norm) {
      rows.weight = a_.norm->weight;
      rows.bias = a_.norm->bias;
      rows.eps = a_.norm->eps;
      rows.normal = normal.data();
    }
    kernels().quantize_rows(rows);
  }

  void sum_groups(std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = begin; i < begin + count; ++i) {
      kernels().sum_groups(row(i), w_.padded_k_, w_.padded_k_ / groups_,
                           sums_.data<std::int32_t>() + i * groups_);
    }
  }

  std::uint8_t* row(std::int64_t r) {
    return rows_.data<std::uint8_t>() + r * row_step() * row_bytes();
  }
  std::uint16_t* half_row(std::int64_t r) { return reinterpret_cast<std::uint16_t*>(row(r)); }
  IntegerRows rows_from(std::int64_t r) {
    if (w_.bits_ == 16) return {};
    return {row(r), row_step(), units_.data() + r,
            groups_ ? sums_.data<std::int32_t>() + r * groups_ : nullptr};
  }
  /// Sums over [begin, end) of k.
  HalfTile half_tile(std::int64_t r, std::int64_t m, std::int64_t panel, float* sums,
                     std::int64_t lds, std::int64_t begin, std::int64_t end) {
    return {m,           half_row(r) + begin,
            row_step(),  w_.data_.data<std::uint16_t>() + (panel * w_.padded_k_ + begin) * columns_,
            end - begin, sums,
            lds,         begin > 0};
  }
  const std::uint8_t* bytes(std::int64_t panel) const {
    return w_.data_.data<std::uint8_t>() + panel * columns_ * w_.padded_k_;
  }
  NibblePanel nibbles(std::int64_t panel) const {
    const std::int64_t at = panel * groups_ * columns_;
    const auto* data = w_.data_.data<std::uint8_t>();
    return {reinterpret_cast<const std::uint32_t*>(data + at * kGroup / 2),
            reinterpret_cast<const std::uint16_t*>(data + w_.scales_at()) + at,
            data + w_.zeros_at() + at};
  }

  /// Reads each weight once: as fast as memory gives them.
  void few_rows() {
    const std::int64_t per_task = panels_per_task(panels(), w_.padded_k_ * columns_ * w_.bits_ / 8);
    ctx_.parallel_for((panels() + per_task - 1) / per_task, [&](std::int64_t task) {
      alignas(64) float sums[kFewIntegerRows * kMostColumns];
      const std::int64_t step = kFewIntegerRows / parts_;
      for (std::int64_t p = task * per_task; p < std::min(panels(), (task + 1) * per_task); ++p) {
        for (std::int64_t r = 0; r < a_.m; r += step) {
          const std::int64_t m = std::min(step, a_.m - r);
          multiply_few(r, m, p, sums);
          const std::int64_t j = p * columns_;
          finish(a_, r, m, j, std::min(columns_, w_.n_ - j), sums, columns_);
        }
      }
    });
  }

  void multiply_few(std::int64_t r, std::int64_t m, std::int64_t panel, float* sums) {
    const IntegerRows rows = rows_from(r * parts_);
    if (w_.bits_ == 16)
      return vector_kernels().half.tile(half_tile(r, m, panel, sums, columns_, 0, w_.padded_k_));
    if (w_.bits_ == 4) {
      kernels().few_rows4(rows, m, nibbles(panel), w_.padded_k_, sums);
    } else {
      kernels().few_rows8(rows, m, bytes(panel), w_.scales_.data() + panel * columns_, w_.padded_k_,
                          sums);
    }
  }

  /// Rows of a tile: what stays in the second-level cache, all tiles of about the same size, which
  /// two threads share evenly. Follows from the shape alone.
  std::int64_t rows_per_tile() const {
    constexpr std::int64_t kBytes = 1 << 18, kMost = 192;
    const std::int64_t step = kernels().tile_rows;
    const std::int64_t depth = w_.bits_ == 16 ? std::min(kRun, w_.padded_k_) : w_.padded_k_;
    const std::int64_t most =
        std::max(step, std::min(kMost, kBytes / (row_bytes() * depth)) / step * step);
    std::int64_t tiles = (a_.m + most - 1) / most;
    if (tiles > 1) tiles += tiles % 2;
    return ((a_.m + tiles - 1) / tiles + step - 1) / step * step;
  }

  /// Whether tiles of whole panels write results: one scale for all of k, and an activation they
  /// know.
  bool tiles_finish() const {
    switch (a_.activation) {
      case Activation::none:
        return w_.bits_ == 8 || (!a_.bias && !a_.residual);
      case Activation::gelu:
      case Activation::gelu_tanh:
        return w_.bits_ == 8 && a_.coarse && !a_.residual;
      default:
        return false;
    }
  }

  /// A thread rounds a tile of rows and goes on with it, kColumnsPerTask columns at a time: what
  /// another one has rounded would have to come out of that one's cache first. Where tiles give
  /// sums alone, as many rows at a time as keep these in the first-level cache, where finish()
  /// finds them again. A panel that has to be widened first, or of which a run is in the cache at a
  /// time, is multiplied by all rows at once.
  void many_rows() {
    constexpr std::int64_t kColumnsPerTask = 128, kRowsPerPart = 32;
    const bool finished = tiles_finish();
    const bool widens = w_.bits_ == 4 || (w_.bits_ == 8 && kernels().widen8);
    const std::int64_t pieces = (w_.n_ + kColumnsPerTask - 1) / kColumnsPerTask;
    const std::int64_t height = rows_per_tile(), tiles = (a_.m + height - 1) / height;
    const bool at_once = widens || (w_.bits_ == 16 && w_.padded_k_ > kRun);
    const std::int64_t block = at_once || finished ? height : 4 * kernels().tile_rows;
    const auto end_of = [&](std::int64_t t) { return std::min(a_.m, (t + 1) * height); };
    const auto round = [&](std::int64_t t, std::int64_t part) {
      const std::int64_t begin = t * height + part * kRowsPerPart;
      round_rows(begin, std::min(end_of(t), begin + kRowsPerPart));
    };
    const std::int64_t parts = (height + kRowsPerPart - 1) / kRowsPerPart;
    const std::int64_t sharing = (ctx_.threads() + tiles - 1) / tiles;  // threads of a tile
    TaskGroups(ctx_, tiles, pieces).run(parts, round, [&](std::int64_t t, std::int64_t piece) {
      const std::int64_t end = end_of(t);
      const std::int64_t j = piece * kColumnsPerTask, n = std::min(kColumnsPerTask, w_.n_ - j);
      const std::int64_t done = finished ? n / columns_ * columns_ : 0;
      // What this thread takes next if those that share the tile go on in turn.
      const std::int64_t later = (piece + sharing) % pieces * kColumnsPerTask / columns_;
      Tensor sums;
      if (done < n) sums = ctx_.empty({block, kColumnsPerTask});
      Widened wide;
      if (widens) wide = Widened(ctx_, *this);
      for (std::int64_t r = t * height; r < end; r += block) {
        const std::int64_t m = std::min(block, end - r);
        for (std::int64_t c = 0; c < n; c += columns_) {
          const std::int64_t panel = (j + c) / columns_;
          const std::int64_t next = c + columns_ < n ? panel + 1 : later;
          if (c < done) {
            tile(r, m, panel, next, wide, a_.y + r * a_.ldy + j + c, a_.ldy, true);
          } else {
            tile(r, m, panel, next, wide, sums.data() + c, kColumnsPerTask, false);
          }
        }
        if (done < n) finish(a_, r, m, j + done, n - done, sums.data() + done, kColumnsPerTask);
      }
    });
  }

  /// Room for a panel as tiles take it.
  struct Widened {
    Widened() = default;
    Widened(Context& ctx, const PanelProduct& p)
        : weight(ctx.empty({p.w_.padded_k_ * p.columns_ * p.row_bytes()}, DType::u8)),
          scales(ctx.empty({std::max<std::int64_t>(1, p.groups_), p.columns_})) {}
    Tensor weight, scales;
  };

  /// `next`: the panel that is likely to be multiplied after this one.
  void tile(std::int64_t r, std::int64_t m, std::int64_t panel, std::int64_t next, Widened& wide,
            float* sums, std::int64_t lds, bool finishes) {
    if (w_.bits_ == 16) {
      for (std::int64_t k = 0; k < w_.padded_k_; k += kRun) {
        vector_kernels().half.tile(
            half_tile(r, m, panel, sums, lds, k, std::min(w_.padded_k_, k + kRun)));
      }
      return;
    }
    IntegerTile tile{.m = m,
                     .rows = rows_from(r),
                     .weight = bytes(panel),
                     .k = w_.padded_k_,
                     .group = w_.padded_k_,
                     .scales = w_.bits_ == 8 ? w_.scales_.data() + panel * columns_ : nullptr,
                     .sums = sums,
                     .lds = lds,
                     .results = a_.y + r * a_.ldy + panel * columns_,
                     .ld_results = a_.ldy,
                     .next = w_.bits_ == 8 ? bytes(next) : nullptr};
    if (finishes) {
      const std::int64_t j = panel * columns_;
      tile.activation = a_.activation;
      tile.bias = a_.bias ? a_.bias + j : nullptr;
      tile.residual = a_.residual ? a_.residual + r * a_.ldr + j : nullptr;
      tile.ld_residual = a_.ldr;
    }
    if (w_.bits_ == 4) {
      kernels().widen4(nibbles(panel), w_.padded_k_, wide.weight.raw(), wide.scales.data());
      tile.group = kGroup;
      tile.scales = wide.scales.data();
    } else if (wide.weight) {
      kernels().widen8(bytes(panel), w_.padded_k_, wide.weight.raw());
    }
    if (wide.weight) tile.weight = wide.weight.raw();
    kernels().tile(tile);
  }

  static constexpr std::int64_t kMostColumns = 32;
  Context& ctx_;
  const QuantizedMatrix& w_;
  const MatmulArguments& a_;
  std::int64_t columns_, groups_ = 0, parts_ = 1;
  Tensor rows_, units_, sums_;
};

std::int64_t QuantizedMatrix::columns() const {
  return bits_ == 16 ? vector_kernels().half.columns : kernels().columns;
}

void matmul(Context& ctx, const QuantizedMatrix& weight, const MatmulArguments& a) {
  if (a.m == 0 || weight.n() == 0) return;
  MatmulArguments arguments = a;
  // Before activations of 7 bits, and after sums of them.
  arguments.coarse = weight.bits() <= 8 && kernels().depth == 4 && a.m > PanelProduct::kMostFewRows;
  PanelProduct(ctx, weight, arguments).run();
}

}  // namespace tessera::kernels
