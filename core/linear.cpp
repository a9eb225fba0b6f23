#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/kernels/integer.h"
#include "core/kernels/matmul.h"
#include "core/kernels/quantized.h"
#include "core/layers.h"
#include "core/linear_in_place.h"
#include "core/profile.h"
#include "core/tape.h"

namespace tessera {
namespace {

using kernels::StackedMatrix;
using kernels::StoredMatrix;

/// Eight 4-bit zero points a word, along the rows: [ceil(out/8), groups] i32 -> [out, groups] u8.
Tensor unpack_zeros(const Tensor& packed, std::int64_t out) {
  Tensor zeros = Tensor::empty({out, packed.dim(1)}, DType::u8);
  for (std::int64_t i = 0; i < out; ++i) {
    for (std::int64_t g = 0; g < packed.dim(1); ++g) {
      const auto word =
          static_cast<std::uint32_t>(packed.data<std::int32_t>()[i / 8 * packed.dim(1) + g]);
      zeros.data<std::uint8_t>()[i * packed.dim(1) + g] = word >> (4 * (i % 8)) & 15u;
    }
  }
  return zeros;
}

/// That of a matrix of `in` inputs: 4 bits are for whole groups, as they are saved.
Precision precision_of(const Weights& w, std::int64_t in) {
  return in % kernels::kGroup == 0 ? w.precision() : int8_at_least(w.precision());
}

/// The matrix as stored: `weight` of floats, `weight` of int8 with `weight_scale`, or compressed-
/// tensors' packed form with 4 bits (`weight_packed`, `weight_scale`, `weight_zero_point`).
StoredMatrix read_matrix(const Weights& w, std::int64_t out, std::int64_t in) {
  StoredMatrix m;
  m.name = w.where("weight");
  if (w.has("weight_packed")) {
    m.bits = 4;
    m.columns = in;
    m.weight = w.get("weight_packed", {out, (in + 7) / 8});
    const Tensor scales = w.get("weight_scale");
    if (m.weight.dtype() != DType::i32 || scales.rank() != 2 || scales.dim(0) != out ||
        scales.dim(1) < 1 || in % scales.dim(1) != 0) {
      throw ShapeError(tessera::concat(
          w.where("weight_packed"), ": 4-bit weights are expected as I32 with ", "scales [", out,
          ", groups], found ", name_of(m.weight.dtype()), " with ", scales.shape().str()));
    }
    m.scales = scales.to_f32();
    if (w.has("weight_zero_point")) {
      const Tensor zeros = w.get("weight_zero_point", {(out + 7) / 8, scales.dim(1)});
      if (zeros.dtype() != DType::i32)
        throw FormatError(tessera::concat(w.where("weight_zero_point"), ": expected I32, found ",
                                          name_of(zeros.dtype())));
      m.zeros = unpack_zeros(zeros, out);
    }
    w.ignore("weight_shape");
    return m;
  }
  m.weight = w.get("weight", {out, in});
  if (m.weight.dtype() == DType::i8) {
    m.scales = w.get("weight_scale", {out, 1}).to_f32();
  } else {
    w.note_matrix("weight", precision_of(w, in));
  }
  return m;
}

Tensor read_bias(const Weights& w, std::int64_t out, Linear::Bias bias) {
  if (bias == Linear::Bias::none) return {};
  if (bias == Linear::Bias::optional && !w.has("bias")) return {};
  return w.get_f32("bias", {out});
}

void check_matrix(const Tensor& weight) {
  if (weight.rank() != 2 || weight.numel() == 0)
    throw ShapeError(tessera::concat("a weight matrix of shape ", weight.shape().str()));
}

/// Bits of a number in the products; 0: f32.
int bits_of(const StoredMatrix& m, Precision precision) {
  switch (precision) {
    case Precision::bf16:
      return 16;
    case Precision::int8:
      return 8;
    case Precision::int4:
      return 4;
    case Precision::f32:
    case Precision::in_place:
      return 0;
    case Precision::as_stored:
    case Precision::automatic:
      break;
  }
  if (m.weight.dtype() == DType::i8) return 8;
  if (m.bits == 4 && m.group() == kernels::kGroup) return 4;
  return precision == Precision::automatic ? 8 : 0;
}

/// Rows of a weight that are multiplied in the same numbers.
class Piece {
 public:
  Piece(const StackedMatrix& source, int bits) {
    if (bits) {
      quantized_.emplace(kernels::QuantizedMatrix::pack(source, bits));
    } else {
      plain_ = kernels::PackedMatrix::pack(source);
    }
  }
  std::int64_t in() const { return quantized_ ? quantized_->k() : plain_.k(); }
  std::int64_t out() const { return quantized_ ? quantized_->n() : plain_.n(); }
  std::int64_t bytes() const { return quantized_ ? quantized_->bytes() : plain_.bytes(); }
  bool rounds() const { return quantized_.has_value(); }
  bool in_bytes() const { return quantized_ && quantized_->bits() <= 8; }
  /// Whether it is the checkpoint's own memory.
  bool shared() const { return !quantized_ && plain_.shared(); }
  void multiply(Context& ctx, const kernels::MatmulArguments& a) const {
    if (quantized_) {
      kernels::matmul(ctx, *quantized_, a);
    } else {
      kernels::matmul(ctx, plain_, a);
    }
  }

 private:
  kernels::PackedMatrix plain_;
  std::optional<kernels::QuantizedMatrix> quantized_;  // or instead
};

/// On all cores where it is large.
template <class Number>
Tensor transposed_of(const Tensor& matrix) {
  constexpr std::int64_t kLarge = 1 << 18, kRows = 64 / sizeof(Number), kColumns = 64;
  const std::int64_t n = matrix.dim(0), k = matrix.dim(1);
  Tensor out = Tensor::empty({k, n}, matrix.dtype());
  const auto* from = matrix.data<Number>();
  auto* to = out.data<Number>();
  Context ctx({.threads = n * k < kLarge ? 1 : 0});
  in_pieces(ctx, k, kColumns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = 0; first < n; first += kRows) {
      for (std::int64_t c = begin; c < end; ++c)
        for (std::int64_t r = first; r < std::min(n, first + kRows); ++r)
          to[c * n + r] = from[r * k + c];
    }
  });
  return out;
}

}  // namespace

Tensor transposed(const Tensor& matrix) {
  return matrix.dtype() == DType::i8 ? transposed_of<std::int8_t>(matrix)
                                     : transposed_of<float>(matrix.to_f32());
}

struct Linear::Impl {
  /// `bits`: of each part.
  Impl(const StackedMatrix& source, const std::vector<int>& bits, Tensor bias_,
       std::vector<std::string> names_ = {})
      : bias(std::move(bias_)), names(std::move(names_)) {
    for (const StoredMatrix& part : source.parts) check_matrix(part.weight);
    for (std::size_t i = 0; i < bits.size();) {
      StackedMatrix same;
      const int own = bits[i];
      for (; i < bits.size() && bits[i] == own; ++i) same.parts.push_back(source.parts[i]);
      pieces.emplace_back(same, own);
    }
  }
  explicit Impl(InPlaceMatrix matrix) : in_place(std::move(matrix)) {
    for (const InPlaceMatrix::Part& part : in_place->parts) check_matrix(part.weight);
  }
  std::int64_t in() const { return in_place ? in_place->in() : pieces.front().in(); }
  std::int64_t out() const { return in_place ? in_place->out() : sum(&Piece::out); }
  std::int64_t sum(std::int64_t (Piece::*of)() const) const {
    std::int64_t total = 0;
    for (const Piece& piece : pieces) total += (piece.*of)();
    return total;
  }

  /// A packed weight is not read from the file again: its pages need not stay in memory beside it.
  void release_if_large(const Weights& w, std::size_t bytes) const {
    if (bytes >= std::size_t{1} << 20 && std::ranges::none_of(pieces, &Piece::shared))
      w.release_pages();
  }

  std::vector<Piece> pieces;              // one below the other
  std::optional<InPlaceMatrix> in_place;  // or instead
  Tensor bias;
  std::vector<std::string> names;  // of its matrices in the checkpoint; none: made of tensors
};

Linear::Linear(const Weights& w, std::int64_t in, std::int64_t out, Bias bias)
    : Linear(concat({{w, out, bias}}, in)) {}

Linear::Linear(const Tensor& weight, const Tensor& bias, Precision precision,
               const Tensor& scales) {
  const Tensor plain_bias = bias ? bias.to_f32() : bias;
  if (precision == Precision::in_place) {
    impl_ = std::make_shared<Impl>(InPlaceMatrix{{{weight.to_f32(), false, plain_bias}}});
  } else {
    const StackedMatrix stored{{{.weight = weight, .scales = scales}}};
    impl_ = std::make_shared<Impl>(stored, std::vector{bits_of(stored.parts.front(), precision)},
                                   plain_bias);
  }
}

Linear Linear::conv1d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t fine) {
  if (w.has("weight_packed")) return Linear(w, in, out);
  const Tensor bias = w.get_f32("bias", {out});
  if (w.precision() == Precision::in_place) {
    Linear linear;
    linear.impl_ = std::make_shared<Impl>(InPlaceMatrix{
        {{w.get_f32("weight", {in, out}), true, bias, InPlaceMatrix::Lora::read(w, in, out)}}});
    return linear;
  }
  const Tensor weight = transposed(w.get("weight", {in, out}));
  Tensor scales;
  if (weight.dtype() == DType::i8)
    scales = w.get("weight_scale", {1, out}).to_f32().reshape({out, 1});
  StackedMatrix stored;
  std::vector<int> bits;
  const auto add = [&](std::int64_t begin, std::int64_t end, Precision precision) {
    if (begin == end) return;
    stored.parts.push_back({.weight = weight.slice(begin, end),
                            .scales = scales ? scales.slice(begin, end) : scales,
                            .name = w.where("weight")});
    bits.push_back(bits_of(stored.parts.back(), precision));
  };
  const Precision precision = precision_of(w, in);
  add(0, out - fine, precision);
  add(out - fine, out, int8_at_least(precision));
  if (!scales) w.note_matrix("weight", fine ? int8_at_least(precision) : precision, true);
  Linear linear;
  linear.impl_ =
      std::make_shared<Impl>(stored, bits, bias, std::vector<std::string>{w.full_name("weight")});
  return linear;
}

Linear Linear::concat(const std::vector<Part>& parts, std::int64_t in) {
  const Weights& first = parts.front().weights;
  Linear linear;
  if (first.precision() == Precision::in_place) {
    InPlaceMatrix matrix;
    for (const Part& part : parts) {
      matrix.parts.push_back({part.weights.get_f32("weight", {part.out, in}), false,
                              read_bias(part.weights, part.out, part.bias),
                              InPlaceMatrix::Lora::read(part.weights, in, part.out)});
    }
    linear.impl_ = std::make_shared<Impl>(std::move(matrix));
    return linear;
  }
  std::int64_t total = 0;
  for (const Part& part : parts) total += part.out;
  StackedMatrix stored;
  Tensor bias = Tensor::zeros({total});
  bool any_bias = false;
  std::size_t bytes = 0;
  std::int64_t at = 0;
  std::vector<std::string> names;
  std::vector<int> bits;
  for (const Part& part : parts) {
    names.push_back(part.weights.full_name("weight"));
    stored.parts.push_back(read_matrix(part.weights, part.out, in));
    bits.push_back(bits_of(stored.parts.back(), precision_of(part.weights, in)));
    bytes += stored.parts.back().weight.nbytes();
    if (const Tensor own = read_bias(part.weights, part.out, part.bias)) {
      std::copy_n(own.data(), own.numel(), bias.data() + at);
      any_bias = true;
    }
    at += part.out;
  }
  linear.impl_ = std::make_shared<Impl>(stored, bits, any_bias ? bias : Tensor(), std::move(names));
  linear.impl_->release_if_large(first, bytes);
  return linear;
}

std::int64_t Linear::in() const { return impl_->in(); }
std::int64_t Linear::out() const { return impl_->out(); }
std::int64_t Linear::bytes() const {
  return impl_->in_place ? in() * out() * 4 : impl_->sum(&Piece::bytes);
}

const InPlaceMatrix* Linear::in_place() const {
  return impl_->in_place ? &*impl_->in_place : nullptr;
}

bool Linear::rounds() const { return std::ranges::any_of(impl_->pieces, &Piece::rounds); }
bool Linear::in_bytes() const {
  return !impl_->in_place && std::ranges::all_of(impl_->pieces, &Piece::in_bytes);
}

Tensor Linear::operator()(Context& ctx, const Tensor& x, const LinearOptions& options) const {
  const bool norms = rounds() && std::ranges::all_of(impl_->pieces, &Piece::rounds);
  if (options.norm && (!norms || ctx.tape || ctx.input_observer)) {
    LinearOptions others = options;
    others.norm = nullptr;
    return (*this)(ctx, (*options.norm)(ctx, x), others);
  }
  if (x.rank() != 2 || x.dim(1) != in() || x.stride(1) != 1) {
    throw ShapeError(
        tessera::concat("a linear layer of ", in(), " inputs was given ", x.shape().str()));
  }
  const StageScope scope(ctx, "linear",
                         {2.0 * static_cast<double>(x.dim(0) * in() * out()),
                          static_cast<double>(bytes()), in(), out()});
  const Tensor& residual = options.residual;
  if (const Shape shape{x.dim(0), out()}; residual && residual.shape() != shape) {
    throw ShapeError(
        tessera::concat("a residual of ", residual.shape().str(), " for outputs ", shape.str()));
  }
  if (impl_->in_place) return (*impl_->in_place)(ctx, x, options);
  if (ctx.tape && (ctx.tape->wants(x) || ctx.tape->wants(residual))) {
    throw UnsupportedError(
        "gradients don't go through packed weights; open the checkpoint in place (Weights::of)");
  }
  if (ctx.input_observer && !impl_->names.empty()) ctx.input_observer(impl_->names, x);
  Tensor y = ctx.empty({x.dim(0), out()});
  const bool fused = kernels::fuses(options.activation);
  kernels::MatmulArguments a;
  a.x = x.data();
  a.ldx = x.dim(0) > 1 ? x.stride(0) : x.dim(1);
  a.m = x.dim(0);
  a.bias = impl_->bias ? impl_->bias.data() : nullptr;
  a.activation = fused ? options.activation : Activation::none;
  a.residual = fused && residual ? residual.data() : nullptr;
  a.ldr = a.residual ? std::max(residual.stride(0), out()) : 0;
  a.y = y.data();
  a.ldy = out();
  kernels::RowNorm norm{};
  if (options.norm) {
    options.norm->check(x);
    norm = {options.norm->weight.data(), options.norm->bias.data(), options.norm->eps};
    a.norm = &norm;
  }
  for (const Piece& piece : impl_->pieces) {
    piece.multiply(ctx, a);
    a.y += piece.out();
    if (a.bias) a.bias += piece.out();
    if (a.residual) a.residual += piece.out();
  }
  if (fused) return y;
  y = activate(ctx, options.activation, y);
  return residual ? add(ctx, y, residual) : y;
}

}  // namespace tessera
