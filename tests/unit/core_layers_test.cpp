#include "core/layers.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "core/kernels/convert.h"
#include "core/kernels/reference.h"
#include "core/kernels/vector.h"
#include "unit/core_numbers.h"

namespace tessera {
namespace {

using testing::close;
using testing::Floats;
using testing::random_tensor;
using testing::strided;

constexpr Activation kActivations[] = {
    Activation::none, Activation::relu,        Activation::gelu,    Activation::gelu_tanh,
    Activation::silu, Activation::tanh,        Activation::sigmoid, Activation::quick_gelu,
    Activation::mish, Activation::relu_squared};

/// Tensors as a checkpoint, written to a file and opened again.
Weights checkpoint(const std::vector<NamedTensor>& tensors) {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  const auto file =
      std::filesystem::temp_directory_path() / (std::string("tessera-layers-") + info->name() +
                                                "-" + std::to_string(::getpid()) + ".safetensors");
  save_safetensors(file, tensors);
  Weights w = Weights::open(file);
  std::filesystem::remove(file);  // stays mapped
  return w;
}

Tensor as_type(const Tensor& t, DType type) {
  if (type == DType::f32) return t;
  Tensor half = Tensor::empty(t.shape(), type);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    half.data<std::uint16_t>()[i] =
        type == DType::f16 ? f32_to_f16(t.data()[i]) : f32_to_bf16(t.data()[i]);
  }
  return half;
}

Tensor random_int8(const Shape& shape, std::uint32_t seed) {
  const Tensor t = random_tensor(shape, seed);
  Tensor result = Tensor::empty(shape, DType::i8);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    result.data<std::int8_t>()[i] = static_cast<std::int8_t>(t.data()[i] * 127.0f);
  return result;
}

Tensor times_rows(const Tensor& weight, const Tensor& scales) {
  Tensor result = weight.to_f32().clone();
  const std::int64_t width = weight.numel() / weight.dim(0);
  for (std::int64_t i = 0; i < result.numel(); ++i) result.data()[i] *= scales.data()[i / width];
  return result;
}

Floats expected_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const LinearOptions& options = {}) {
  const Tensor rows = x.to_f32(),
               residual = options.residual ? options.residual.to_f32() : Tensor();
  Floats y(static_cast<std::size_t>(x.dim(0) * weight.dim(0)));
  kernels::reference::linear(rows.data(), weight.data(), bias ? bias.data() : nullptr,
                             residual ? residual.data() : nullptr, options.activation, x.dim(0),
                             weight.dim(0), weight.dim(1), y.data());
  return y;
}

struct Size {
  std::int64_t rows, out, in;
  std::string str() const { return concat(rows, " x ", in, " -> ", out); }
};
constexpr Size kSizes[] = {{1, 1, 1},    {1, 3, 17},     {3, 1, 5},      {17, 17, 17},
                           {31, 64, 48}, {5, 97, 101},   {129, 65, 33},  {1, 385, 192},
                           {33, 384, 7}, {257, 769, 67}, {128, 128, 128}};

class Layers : public ::testing::Test {
 protected:
  Context ctx_{{.threads = 2, .log = {}}};
};

TEST_F(Layers, LinearAtAwkwardSizes) {
  for (const Size& s : kSizes) {
    const Tensor x = random_tensor({s.rows, s.in}, 1), weight = random_tensor({s.out, s.in}, 2),
                 bias = random_tensor({s.out}, 3);
    for (const Tensor& b : {bias, Tensor()}) {
      const Linear linear(weight, b);
      EXPECT_EQ(linear.in(), s.in);
      EXPECT_EQ(linear.out(), s.out);
      EXPECT_TRUE(close(linear(ctx_, x).to_vector(), expected_linear(x, weight, b), 1e-5))
          << s.str();
      EXPECT_TRUE(close(linear(ctx_, strided(x)).to_vector(), expected_linear(x, weight, b), 1e-5))
          << s.str() << ", strided rows";
    }
  }
}

// Some of oneDNN's kernels cut such sums in parts. More is rounded in longer sums.
TEST_F(Layers, LinearOfManyInputs) {
  for (const Size& s : {Size{17, 65, 1040}, Size{64, 131, 1537}, Size{35, 384, 4096}}) {
    const Tensor x = random_tensor({s.rows, s.in}, 1), weight = random_tensor({s.out, s.in}, 2),
                 bias = random_tensor({s.out}, 3);
    EXPECT_TRUE(
        close(Linear(weight, bias)(ctx_, x).to_vector(), expected_linear(x, weight, bias), 1e-4))
        << s.str();
  }
}

TEST_F(Layers, LinearWithEveryActivationBiasAndResidual) {
  for (const Size& s : {Size{1, 3, 17}, Size{37, 97, 31}}) {
    const Tensor x = random_tensor({s.rows, s.in}, 1), weight = random_tensor({s.out, s.in}, 2);
    const Tensor residual = random_tensor({s.rows, s.out}, 4);
    for (const Activation activation : kActivations) {
      for (const Tensor& bias : {random_tensor({s.out}, 3), Tensor()}) {
        for (const Tensor& added : {residual, Tensor()}) {
          const LinearOptions options{.activation = activation, .residual = added};
          EXPECT_TRUE(close(Linear(weight, bias)(ctx_, x, options).to_vector(),
                            expected_linear(x, weight, bias, options), 2e-5))
              << s.str() << ", activation " << static_cast<int>(activation) << ", bias "
              << static_cast<bool>(bias) << ", residual " << static_cast<bool>(added);
        }
      }
    }
  }
}

TEST_F(Layers, LinearAddsAStridedResidual) {
  const Tensor x = random_tensor({37, 31}, 1), weight = random_tensor({19, 31}, 2),
               residual = random_tensor({37, 19}, 4);
  for (const Activation activation : {Activation::none, Activation::gelu, Activation::mish}) {
    const LinearOptions options{.activation = activation, .residual = strided(residual)};
    EXPECT_TRUE(close(Linear(weight, {})(ctx_, x, options).to_vector(),
                      expected_linear(x, weight, {}, options), 1e-5))
        << "activation " << static_cast<int>(activation);
  }
}

TEST_F(Layers, LinearReadsEveryType) {
  const Tensor x = random_tensor({5, 33}, 1), weight = random_tensor({67, 33}, 2),
               bias = random_tensor({67}, 3);
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const Tensor stored = as_type(weight, type), stored_bias = as_type(bias, type);
    const Weights w = checkpoint({{"weight", stored}, {"bias", stored_bias}});
    const Floats expected = expected_linear(x, stored.to_f32(), stored_bias.to_f32());
    EXPECT_TRUE(close(Linear(w, 33, 67)(ctx_, x).to_vector(), expected, 1e-5)) << name_of(type);
    EXPECT_TRUE(w.leftovers().empty());
  }
  EXPECT_THROW(Linear(checkpoint({{"weight", weight}}), 67, 33), ShapeError);
  EXPECT_THROW(Linear(checkpoint({{"weight", weight}}), 33, 67), FormatError);
  const Weights w = checkpoint({{"weight", weight}, {"bias", bias}});
  EXPECT_TRUE(close(Linear(w, 33, 67, Linear::Bias::none)(ctx_, x).to_vector(),
                    expected_linear(x, weight, {}), 1e-5));
  EXPECT_EQ(w.leftovers(), std::vector<std::string>{"bias"});
}

/// bf16 numbers stay as they are and lose nothing: a copy of them in f32 gives the same.
TEST_F(Layers, LinearKeepsBf16Weights) {
  const Tensor first = as_type(random_tensor({40, 97}, 2), DType::bf16),
               second = as_type(random_tensor({27, 97}, 3), DType::bf16);
  const Weights half = checkpoint({{"a.weight", first}, {"b.weight", second}}),
                wide = checkpoint({{"a.weight", first.to_f32()}, {"b.weight", second.to_f32()}});
  for (const std::int64_t rows : {1, 5, 16, 70}) {
    const Tensor x = random_tensor({rows, 97}, 1);
    const auto product = [&](const Weights& w, bool both) {
      if (!both) return Linear(w.at("a"), 97, 40, Linear::Bias::none)(ctx_, x).to_vector();
      return Linear::concat(
                 {{w.at("a"), 40, Linear::Bias::none}, {w.at("b"), 27, Linear::Bias::none}}, 97)(
                 ctx_, x)
          .to_vector();
    };
    for (const bool both : {false, true})
      EXPECT_TRUE(close(product(half, both), product(wide, both), 1e-5)) << rows << " rows";
  }
  EXPECT_EQ(Linear(half.at("a"), 97, 40, Linear::Bias::none).bytes(), 40 * 97 * 2);
  EXPECT_FALSE(Linear(half.at("a"), 97, 40, Linear::Bias::none).rounds());
}

TEST_F(Layers, LinearMultipliesInt8Rows) {
  for (const Size& s : {Size{1, 3, 17}, Size{33, 97, 64}}) {
    const Tensor x = random_tensor({s.rows, s.in}, 1), weight = random_int8({s.out, s.in}, 2),
                 scales = random_tensor({s.out, 1}, 3);
    const Floats expected = expected_linear(x, times_rows(weight, scales), {});
    EXPECT_TRUE(
        close(Linear(weight, {}, Precision::f32, scales)(ctx_, x).to_vector(), expected, 1e-4))
        << s.str();
    const Weights w = checkpoint({{"weight", weight}, {"weight_scale", scales}});
    EXPECT_TRUE(
        close(Linear(w, s.in, s.out, Linear::Bias::none)(ctx_, x).to_vector(), expected, 1e-4))
        << s.str();
    EXPECT_TRUE(w.leftovers().empty());
  }
}

/// Eight numbers of 0..15 a word, the first in the lowest bits.
Tensor packed_words(const std::vector<int>& numbers, const Shape& shape) {
  Tensor words = Tensor::zeros(shape, DType::i32);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    auto& word = words.data<std::int32_t>()[i / 8];
    word = static_cast<std::int32_t>(static_cast<std::uint32_t>(word) |
                                     static_cast<std::uint32_t>(numbers[i]) << (4 * (i % 8)));
  }
  return words;
}

TEST_F(Layers, LinearReadsPackedNibbles) {
  const std::int64_t in = 64, out = 8, groups = 2;
  std::vector<int> numbers, zeros;  // zeros: [groups][out], as they are packed along the rows
  for (std::int64_t i = 0; i < out * in; ++i) numbers.push_back(static_cast<int>(i * 7 % 16));
  for (std::int64_t i = 0; i < out * groups; ++i) zeros.push_back(static_cast<int>(i * 5 % 16));
  const Tensor scales = as_type(random_tensor({out, groups}, 3), DType::bf16);
  const Tensor packed = packed_words(numbers, {out, in / 8});
  Tensor x = Tensor::empty({5, in});  // -1, 0 and 1, which rounding leaves as they are
  for (std::int64_t i = 0; i < x.numel(); ++i)
    x.data()[i] = static_cast<float>(i * 5 % 7 % 3) - 1.0f;
  // One word holds the zero points of a group's eight rows.
  const Tensor packed_zeros = packed_words(zeros, {1, groups});
  for (const bool symmetric : {true, false}) {
    Tensor weight = Tensor::empty({out, in});
    for (std::int64_t j = 0; j < out; ++j) {
      for (std::int64_t i = 0; i < in; ++i) {
        const std::int64_t g = i / 32;
        const int zero = symmetric ? 8 : zeros[static_cast<std::size_t>(g * out + j)];
        weight.data()[j * in + i] =
            static_cast<float>(numbers[static_cast<std::size_t>(j * in + i)] - zero) *
            scales.to_f32().data()[j * groups + g];
      }
    }
    std::vector<NamedTensor> tensors = {{"weight_packed", packed},
                                        {"weight_scale", scales},
                                        {"weight_shape", Tensor::zeros({2}, DType::i64)}};
    if (!symmetric) tensors.push_back({"weight_zero_point", packed_zeros});
    const Weights w = checkpoint(tensors);
    const Floats expected = expected_linear(x, weight, {});
    EXPECT_TRUE(close(Linear(w, in, out, Linear::Bias::none)(ctx_, x).to_vector(), expected, 1e-5));
    // Taken as they are.
    EXPECT_TRUE(
        close(Linear(w.with(Precision::int4), in, out, Linear::Bias::none)(ctx_, x).to_vector(),
              expected, 1e-5));
    EXPECT_TRUE(w.leftovers().empty());
  }
  EXPECT_THROW(
      Linear(checkpoint({{"weight_packed", packed}, {"weight_scale", random_tensor({out, 3}, 1)}}),
             in, out, Linear::Bias::none),
      ShapeError);
}

TEST_F(Layers, LinearWantsAMatrix) {
  for (const Precision precision : {Precision::f32, Precision::int8, Precision::int4}) {
    EXPECT_THROW(Linear(random_tensor({6}, 1), {}, precision), ShapeError);
    EXPECT_THROW(Linear(random_tensor({2, 3, 4}, 1), {}, precision), ShapeError);
    EXPECT_THROW(Linear(Tensor::empty({0, 4}), {}, precision), ShapeError);
  }
}

TEST_F(Layers, LinearOfGpt2IsTransposed) {
  const Tensor x = random_tensor({7, 31}, 1), stored = random_tensor({31, 67}, 2),
               bias = random_tensor({67}, 3);
  Tensor weight = Tensor::empty({67, 31});
  for (std::int64_t i = 0; i < 31; ++i) {
    for (std::int64_t o = 0; o < 67; ++o) weight.data()[o * 31 + i] = stored.data()[i * 67 + o];
  }
  const Weights w = checkpoint({{"weight", stored}, {"bias", bias}});
  EXPECT_TRUE(close(Linear::conv1d(w, 31, 67)(ctx_, x).to_vector(),
                    expected_linear(x, weight, bias), 1e-5));
}

TEST_F(Layers, LinearConcatenatesProjections) {
  const std::int64_t in = 33;
  const Tensor x = random_tensor({19, in}, 1);
  const Tensor q = random_tensor({20, in}, 2), k = random_tensor({7, in}, 3),
               v = random_int8({9, in}, 4), scales = random_tensor({9, 1}, 5),
               bias = random_tensor({20}, 6);
  const Weights w = checkpoint({{"q.weight", q},
                                {"q.bias", bias},
                                {"k.weight", k},
                                {"v.weight", v},
                                {"v.weight_scale", scales}});
  const Tensor y = Linear::concat({{w.at("q"), 20, Linear::Bias::optional},
                                   {w.at("k"), 7, Linear::Bias::optional},
                                   {w.at("v"), 9, Linear::Bias::optional}},
                                  in)(ctx_, x);
  ASSERT_EQ(y.shape(), (Shape{19, 36}));
  EXPECT_TRUE(close(y.columns(0, 20).to_vector(), expected_linear(x, q, bias), 1e-5));
  EXPECT_TRUE(close(y.columns(20, 27).to_vector(), expected_linear(x, k, {}), 1e-5));
  EXPECT_TRUE(
      close(y.columns(27, 36).to_vector(), expected_linear(x, times_rows(v, scales), {}), 1e-4));
  EXPECT_TRUE(w.leftovers().empty());
}

/// Parts of 4 and of 8 bits: each has its own numbers, and what is added its place.
TEST_F(Layers, LinearConcatenatesPrecisions) {
  const std::int64_t in = 64;
  const Tensor x = random_tensor({3, in}, 1), residual = random_tensor({3, 45}, 7);
  const Weights w = checkpoint({{"q.weight", random_tensor({20, in}, 2)},
                                {"q.bias", random_tensor({20}, 3)},
                                {"k.weight", random_tensor({16, in}, 4)},
                                {"v.weight", random_tensor({9, in}, 5)},
                                {"v.bias", random_tensor({9}, 6)}})
                        .with(Precision::int4);
  const Weights fine = int8_at_least(w);
  const auto alone = [&](const Weights& part, std::int64_t out, std::int64_t at) {
    return Linear(part, in, out, Linear::Bias::optional)(
               ctx_, x,
               {.activation = Activation::silu, .residual = residual.columns(at, at + out)})
        .to_vector();
  };
  const Linear all = Linear::concat({{w.at("q"), 20, Linear::Bias::optional},
                                     {fine.at("k"), 16, Linear::Bias::optional},
                                     {fine.at("v"), 9, Linear::Bias::optional}},
                                    in);
  const Tensor y = all(ctx_, x, {.activation = Activation::silu, .residual = residual});
  ASSERT_EQ(y.shape(), (Shape{3, 45}));
  EXPECT_EQ(y.columns(0, 20).to_vector(), alone(w.at("q"), 20, 0));
  EXPECT_EQ(y.columns(20, 36).to_vector(), alone(fine.at("k"), 16, 20));
  EXPECT_EQ(y.columns(36, 45).to_vector(), alone(fine.at("v"), 9, 36));
  EXPECT_NE(y.columns(36, 45).to_vector(), alone(w.at("v"), 9, 36)) << "8 bits are not 4";
  EXPECT_EQ(all.out(), 45);
  EXPECT_TRUE(all.rounds());
  EXPECT_TRUE(all.in_bytes());
  EXPECT_EQ(w.matrix_precision("q.weight"), Precision::int4);
  EXPECT_EQ(Linear::concat({{w.at("q"), 20, Linear::Bias::none},
                            {w.with(Precision::f32).at("k"), 16, Linear::Bias::none}},
                           in)
                .in_bytes(),
            false);
}

/// 4 bits are for whole groups of 32, however a checkpoint comes to have them.
TEST_F(Layers, LinearOfPartialGroupsHas8Bits) {
  const Tensor x = random_tensor({2, 40}, 1);
  const Weights w = checkpoint({{"weight", random_tensor({7, 40}, 2)}}).with(Precision::int4);
  EXPECT_EQ(Linear(w, 40, 7, Linear::Bias::none)(ctx_, x).to_vector(),
            Linear(w.with(Precision::int8), 40, 7, Linear::Bias::none)(ctx_, x).to_vector());
}

TEST_F(Layers, LinearOfGpt2KeepsItsLastOutputsFine) {
  const Tensor x = random_tensor({2, 32}, 1);
  const Weights w =
      checkpoint({{"weight", random_tensor({32, 24}, 2)}, {"bias", random_tensor({24}, 3)}})
          .with(Precision::int4);
  const Tensor y = Linear::conv1d(w, 32, 24, 8)(ctx_, x);
  EXPECT_EQ(y.columns(0, 16).to_vector(),
            Linear::conv1d(w, 32, 24)(ctx_, x).columns(0, 16).to_vector());
  EXPECT_EQ(y.columns(16, 24).to_vector(),
            Linear::conv1d(w.with(Precision::int8), 32, 24)(ctx_, x).columns(16, 24).to_vector());
}

TEST_F(Layers, LinearRefusesOtherShapes) {
  const Linear linear(random_tensor({4, 6}, 1), {});
  EXPECT_THROW(linear(ctx_, random_tensor({2, 5}, 1)), ShapeError);
  EXPECT_THROW(linear(ctx_, random_tensor({6}, 1)), ShapeError);
  const LinearOptions options{.activation = {}, .residual = random_tensor({2, 5}, 1)};
  EXPECT_THROW(linear(ctx_, random_tensor({2, 6}, 1), options), ShapeError);
  EXPECT_EQ(linear(ctx_, random_tensor({0, 6}, 1)).shape(), (Shape{0, 4}));
}

TEST_F(Layers, Norms) {
  for (const std::int64_t width : {3, 17, 384}) {
    for (const std::int64_t rows : {1, 3, 67, 129}) {
      const Tensor x = random_tensor({rows, width}, 1), weight = random_tensor({width}, 2),
                   bias = random_tensor({width}, 3);
      const Weights w = checkpoint({{"weight", weight}, {"bias", bias}});
      Floats layer(static_cast<std::size_t>(x.numel())), rms(layer);
      for (std::int64_t i = 0; i < rows; ++i) {
        const float* row = x.data() + i * width;
        kernels::reference::layer_norm(row, weight.data(), bias.data(), 1e-5f, width,
                                       layer.data() + i * width);
        kernels::reference::rms_norm(row, weight.data(), 1e-6f, width, rms.data() + i * width);
      }
      for (const Tensor& rows_given : {x, strided(x)}) {
        EXPECT_TRUE(close(LayerNorm(w, width, 1e-5)(ctx_, rows_given).to_vector(), layer, 1e-5));
        EXPECT_TRUE(close(RmsNorm(w, width, 1e-6)(ctx_, rows_given).to_vector(), rms, 1e-5));
      }
    }
  }
}

TEST_F(Layers, EmbeddingLooksRowsUpInEveryType) {
  const std::vector<std::int32_t> ids{4, 0, 4, 10};
  const Tensor table = random_tensor({11, 17}, 1), scales = random_tensor({11, 1}, 2);
  const auto check = [&](const Weights& w, const Tensor& wide) {
    const Embedding embedding(w, 11, 17);
    const Tensor rows = embedding(ctx_, ids);
    ASSERT_EQ(rows.shape(), (Shape{4, 17}));
    for (std::size_t i = 0; i < ids.size(); ++i)
      EXPECT_EQ(rows[static_cast<std::int64_t>(i)].to_vector(), wide[ids[i]].to_vector());
    const Tensor x = random_tensor({3, 17}, 5);
    EXPECT_TRUE(
        close(embedding.as_linear()(ctx_, x).to_vector(), expected_linear(x, wide, {}), 1e-4));
    EXPECT_THROW(embedding(ctx_, std::vector<std::int32_t>{11}), ArgumentError);
    EXPECT_THROW(embedding(ctx_, std::vector<std::int32_t>{-1}), ArgumentError);
  };
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const Tensor stored = as_type(table, type);
    check(checkpoint({{"weight", stored}}), stored.to_f32());
  }
  const Tensor small = random_int8({11, 17}, 3);
  check(checkpoint({{"weight", small}, {"weight_scale", scales}}), times_rows(small, scales));
}

struct ConvCase {
  std::int64_t frames, in, out, kernel, stride, padding;
};
constexpr ConvCase kConvCases[] = {{1, 1, 1, 1, 1, 0}, {7, 3, 5, 3, 1, 1},     {8, 3, 5, 3, 2, 1},
                                   {3, 4, 2, 3, 1, 0}, {131, 17, 19, 3, 2, 1}, {5, 2, 3, 7, 1, 3}};

TEST_F(Layers, Conv1d) {
  for (const ConvCase& c : kConvCases) {
    const Tensor x = random_tensor({c.frames, c.in}, 1),
                 weight = random_tensor({c.out, c.in, c.kernel}, 2),
                 bias = random_tensor({c.out}, 3);
    const Conv1d conv(checkpoint({{"weight", weight}, {"bias", bias}}), c.in, c.out, c.kernel,
                      c.stride, c.padding);
    const std::int64_t count = (c.frames + 2 * c.padding - c.kernel) / c.stride + 1;
    Floats expected(static_cast<std::size_t>(count * c.out));
    kernels::reference::conv1d(x.data(), weight.data(), bias.data(), c.frames, c.in, c.out,
                               c.kernel, c.stride, c.padding, expected.data());
    EXPECT_TRUE(close(conv(ctx_, x).to_vector(), expected, 1e-5)) << c.frames;
    EXPECT_TRUE(close(conv(ctx_, strided(x)).to_vector(), expected, 1e-5)) << c.frames;
    const auto with = [&](Precision precision) {
      return Conv1d(checkpoint({{"weight", weight}, {"bias", bias}}).with(precision), c.in, c.out,
                    c.kernel, c.stride, c.padding);
    };
    const auto& kernels = kernels::vector_kernels();
    const bool seven_bits = kernels.integer.depth == 4 && !kernels.half.native;
    for (const Precision precision : {Precision::bf16, Precision::int8}) {
      const double error = precision == Precision::int8 && seven_bits ? 0.06 : 0.03;
      EXPECT_TRUE(close(with(precision)(ctx_, x).to_vector(), expected, error)) << c.frames;
      EXPECT_EQ(with(precision)(ctx_, x).to_vector(),
                with(precision)(ctx_, strided(x)).to_vector());
    }
    for (float& v : expected) v = kernels::reference::activate(Activation::gelu, v);
    EXPECT_TRUE(close(conv(ctx_, x, Activation::gelu).to_vector(), expected, 1e-5)) << c.frames;
  }
  const NamedTensor kernel{"weight", random_tensor({1, 1, 5}, 1)};
  EXPECT_THROW(Conv1d(checkpoint({kernel}), 1, 1, 5, 1, 1), FormatError) << "without its bias";
  const Conv1d wide(checkpoint({kernel, {"bias", random_tensor({1}, 2)}}), 1, 1, 5, 1, 1);
  EXPECT_THROW(wide(ctx_, random_tensor({2, 1}, 1)), ShapeError);
}

TEST_F(Layers, Conv2dTakesPatchesInReadingOrder) {
  const std::int64_t in = 3, out = 5, patch = 4, height = 11, width = 14;  // edges are left over
  const Tensor x = random_tensor({in, height, width}, 1),
               weight = random_tensor({out, in, patch, patch}, 2), bias = random_tensor({out}, 3);
  Floats expected;
  for (std::int64_t py = 0; py < height / patch; ++py) {
    for (std::int64_t px = 0; px < width / patch; ++px) {
      for (std::int64_t o = 0; o < out; ++o) {
        double sum = bias.data()[o];
        for (std::int64_t c = 0; c < in; ++c) {
          for (std::int64_t i = 0; i < patch * patch; ++i) {
            const std::int64_t y = py * patch + i / patch, column = px * patch + i % patch;
            sum += static_cast<double>(x.data()[(c * height + y) * width + column]) *
                   weight.data()[(o * in + c) * patch * patch + i];
          }
        }
        expected.push_back(static_cast<float>(sum));
      }
    }
  }
  const Conv2d conv(checkpoint({{"weight", weight}, {"bias", bias}}), in, out, patch);
  EXPECT_TRUE(close(conv(ctx_, x).to_vector(), expected, 1e-5));
  EXPECT_THROW(conv(ctx_, random_tensor({in, 3, 8}, 1)), ShapeError);
  EXPECT_THROW(conv(ctx_, random_tensor({in + 1, 8, 8}, 1)), ShapeError);
}

struct Heads {
  std::int64_t heads, kv_heads, width;
};

TEST_F(Layers, Attention) {
  for (const Heads& h : {Heads{1, 1, 17}, Heads{3, 3, 31}, Heads{6, 2, 16}, Heads{4, 1, 64}}) {
    for (const std::int64_t queries : {1, 3, 4, 5, 17, 97}) {
      for (const std::int64_t keys : {1, 3, 17, 64, 257}) {
        for (const bool causal : {false, true}) {
          if (causal && keys < queries) continue;
          const Tensor q = random_tensor({queries, h.heads * h.width}, 1),
                       k = random_tensor({keys, h.kv_heads * h.width}, 2),
                       v = random_tensor({keys, h.kv_heads * h.width}, 3);
          Floats expected(static_cast<std::size_t>(q.numel()));
          kernels::reference::attention(
              q.data(), k.data(), v.data(), queries, keys, h.heads, h.kv_heads, h.width,
              1.0f / std::sqrt(static_cast<float>(h.width)), causal, expected.data());
          const AttentionOptions options{
              .heads = h.heads, .kv_heads = h.kv_heads, .causal = causal, .scale = 0};
          EXPECT_TRUE(close(attention(ctx_, q, k, v, options).to_vector(), expected, 3e-6));
          EXPECT_TRUE(
              close(attention(ctx_, strided(q), strided(k), strided(v), options).to_vector(),
                    expected, 3e-6))
              << "heads " << h.heads << ", queries " << queries << ", keys " << keys;
        }
      }
    }
  }
}

TEST_F(Layers, AttentionInBytes) {
  const bool there = kernels::vector_kernels().weighs_bytes;
  for (const Heads& h : {Heads{3, 3, 31}, Heads{6, 2, 16}, Heads{4, 1, 64}, Heads{1, 1, 300}}) {
    for (const std::int64_t queries : {3, 9, 97}) {
      for (const auto& [causal, keys] : {std::pair{false, 513}, {true, 513}, {false, 511}}) {
        const Tensor q = random_tensor({queries, h.heads * h.width}, 1),
                     k = random_tensor({keys, h.kv_heads * h.width}, 2),
                     v = random_tensor({keys, h.kv_heads * h.width}, 3);
        AttentionOptions options{.heads = h.heads, .kv_heads = h.kv_heads, .causal = causal};
        const Floats exact = attention(ctx_, q, k, v, options).to_vector();
        options.in_bytes = true;
        const Floats found = attention(ctx_, q, k, v, options).to_vector();
        EXPECT_TRUE(close(found, exact, 0.02)) << h.heads << " heads, " << queries << " queries";
        const bool bytes = there && queries >= 9 && !causal && keys >= 512 && h.width <= 256;
        EXPECT_EQ(found != exact, bytes) << h.heads << " heads of " << h.width << ", " << queries;
        EXPECT_EQ(attention(ctx_, strided(q), strided(k), strided(v), options).to_vector(), found);
        Context alone({.threads = 1, .log = {}});
        EXPECT_EQ(attention(alone, q, k, v, options).to_vector(), found);
      }
    }
  }
}

/// Where numbers may be rounded they are, to what the machine multiplies faster than f32: as near
/// as bf16 is, also of views and in any number of threads.
TEST_F(Layers, RoundedAttention) {
  const auto& kernels = kernels::vector_kernels();
  for (const Heads& h : {Heads{3, 3, 31}, Heads{6, 2, 16}, Heads{4, 1, 64}, Heads{1, 1, 300}}) {
    for (const auto& [queries, keys] : {std::pair{3, 40}, {9, 197}, {97, 197}, {97, 600}}) {
      for (const bool causal : {false, true}) {
        const Tensor q = random_tensor({queries, h.heads * h.width}, 1),
                     k = random_tensor({keys, h.kv_heads * h.width}, 2),
                     v = random_tensor({keys, h.kv_heads * h.width}, 3);
        AttentionOptions options{.heads = h.heads, .kv_heads = h.kv_heads, .causal = causal};
        const Floats exact = attention(ctx_, q, k, v, options).to_vector();
        options.rounded = true;
        const Floats found = attention(ctx_, q, k, v, options).to_vector();
        EXPECT_TRUE(close(found, exact, 0.005)) << h.heads << " heads, " << queries << " queries";
        const bool faster = kernels.half.native || (kernels.multiplies_shorts && h.width <= 256);
        EXPECT_EQ(found != exact, faster && queries >= 9) << h.width << ", " << queries;
        EXPECT_EQ(attention(ctx_, strided(q), strided(k), strided(v), options).to_vector(), found);
        Context alone({.threads = 1, .log = {}});
        EXPECT_EQ(attention(alone, q, k, v, options).to_vector(), found);
      }
    }
  }
}

/// A decoder's, whose keys and values are kept as bf16.
TEST_F(Layers, CausalAttentionInBytes) {
  const bool there = kernels::vector_kernels().weighs_bytes;
  for (const Heads& h : {Heads{6, 2, 64}, Heads{2, 2, 31}, Heads{3, 1, 128}}) {
    for (const auto& [queries, keys] : {std::pair{97, 513}, {600, 600}, {511, 511}}) {
      KvCache cache(1, {DType::bf16, DType::bf16, h.kv_heads});
      const Tensor q = random_tensor({queries, h.heads * h.width}, 1);
      const KeyValues seen = cache.layer(0).append(random_tensor({keys, h.kv_heads * h.width}, 2),
                                                   random_tensor({keys, h.kv_heads * h.width}, 3));
      AttentionOptions options{.heads = h.heads, .kv_heads = h.kv_heads, .causal = true};
      const auto found = [&](Context& ctx) {
        Tensor out = ctx.empty(q.shape());
        AttentionItem item{q, seen, out};
        attention(ctx, std::span(&item, 1), options);
        return out.to_vector();
      };
      const Floats exact = found(ctx_);
      options.in_bytes = true;
      const Floats rounded = found(ctx_);
      EXPECT_TRUE(close(rounded, exact, 0.02)) << h.heads << " heads, " << queries << " queries";
      EXPECT_EQ(rounded != exact, there && keys >= 512) << h.heads << " heads of " << h.width;
      Context alone({.threads = 1});
      EXPECT_EQ(found(alone), rounded);
    }
  }
}

/// Items one after the other are measured one by one.
TEST_F(Layers, AttentionInBytesOfSeveralItems) {
  const Tensor x = random_tensor({1200, 3 * 32}, 1);
  const AttentionOptions options{.heads = 2, .in_bytes = true};
  const auto of = [&](const Tensor& t, const std::vector<std::int64_t>& begin) {
    return attention(ctx_, t.columns(0, 32), t.columns(32, 64), t.columns(64, 96), options, begin)
        .to_vector();
  };
  const Floats both = of(x, {0, 520, 1200});
  Floats expected = of(x.slice(0, 520), {0, 520});
  const Floats second = of(x.slice(520, 1200), {0, 680});
  expected.insert(expected.end(), second.begin(), second.end());
  EXPECT_EQ(both, expected);
}

TEST_F(Layers, AttentionRefusesOtherShapes) {
  const auto t = [](std::int64_t rows, std::int64_t columns) {
    return random_tensor({rows, columns}, 1);
  };
  const auto fails = [&](const Tensor& q, const Tensor& k, const Tensor& v,
                         const AttentionOptions& options) {
    EXPECT_THROW(attention(ctx_, q, k, v, options), ShapeError);
  };
  fails(t(3, 8), t(3, 8), t(4, 8), {.heads = 2});
  fails(t(3, 8), t(3, 6), t(3, 6), {.heads = 2});
  fails(t(3, 8), t(3, 8), t(3, 8), {.heads = 3});
  fails(t(3, 8), t(0, 8), t(0, 8), {.heads = 2});
  fails(t(4, 8), t(3, 8), t(3, 8), {.heads = 2, .kv_heads = 0, .causal = true});
  fails(t(3, 9), t(3, 6), t(3, 6), {.heads = 3, .kv_heads = 2});
}

TEST_F(Layers, ActivationsHaveTheirNames) {
  EXPECT_EQ(activation_from_name("gelu_new"), Activation::gelu_tanh);
  EXPECT_EQ(activation_from_name("gelu"), Activation::gelu);
  EXPECT_EQ(activation_from_name("quick_gelu"), Activation::quick_gelu);
  EXPECT_EQ(activation_from_name("swish"), Activation::silu);
  EXPECT_THROW(activation_from_name("snake"), UnsupportedError);
}

TEST_F(Layers, ActivateAddMultiply) {
  const Tensor a = random_tensor({401, 401}, 1), b = random_tensor({401, 401}, 2);
  const Tensor sum = add(ctx_, a, b), soft = activate(ctx_, Activation::mish, a);
  const Tensor product = multiply(ctx_, a, b);
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    ASSERT_EQ(sum.data()[i], a.data()[i] + b.data()[i]);
    ASSERT_EQ(product.data()[i], a.data()[i] * b.data()[i]);
    ASSERT_EQ(soft.data()[i], kernels::reference::activate(Activation::mish, a.data()[i]));
  }
  EXPECT_THROW(add(ctx_, a, b.slice(0, 5)), ShapeError);
  EXPECT_THROW(multiply(ctx_, a, b.slice(0, 5)), ShapeError);
}

Config config_of(const char* text) { return Config::parse(text, "config.json"); }

TEST_F(Layers, Rope) {
  const Rope rope(config_of(R"({"rope_theta": 50.0})"), 6);
  ASSERT_EQ(rope.frequencies.dim(0), 3);
  const std::vector<std::int64_t> positions = {0, 1, 2, 40, 7, 1000};
  const Tensor angles = rope.angles(ctx_, positions);
  const Tensor x = random_tensor({6, 4 * 6}, 1), y = rope(ctx_, strided(x), angles);
  for (std::int64_t r = 0; r < 6; ++r) {
    Floats expected(24);
    for (std::int64_t head = 0; head < 4; ++head) {
      const float* cos = angles.data() + r * 6;
      kernels::reference::rotate(x.data() + r * 24 + head * 6, cos, cos + 3, 3,
                                 expected.data() + head * 6);
    }
    EXPECT_TRUE(close(y.slice(r, r + 1).to_vector(), expected, 2e-7)) << "row " << r;
  }
  EXPECT_EQ(y.slice(0, 1).to_vector(), x.slice(0, 1).to_vector());  // position 0 turns nothing
  EXPECT_THROW(rope(ctx_, random_tensor({6, 10}, 1), angles), ShapeError);
  EXPECT_THROW(rope(ctx_, random_tensor({5, 12}, 1), angles), ShapeError);
}

TEST_F(Layers, RopeOfConfigsThatMakeNoSense) {
  const auto rope = [](const char* text) { return Rope(config_of(text), 4); };
  EXPECT_THROW(Rope(config_of("{}"), 5), FormatError);
  EXPECT_THROW(rope(R"({"rope_theta": 0})"), FormatError);
  EXPECT_THROW(rope(R"({"rope_theta": -1e4})"), FormatError);
  EXPECT_THROW(rope(R"({"rope_scaling": {"type": "linear"}})"), FormatError);
  EXPECT_THROW(rope(R"({"rope_scaling": {"type": "linear", "factor": 0}})"), FormatError);
  EXPECT_THROW(rope(R"({"rope_parameters": {"rope_type": "yarn"}})"), UnsupportedError);
  EXPECT_THROW(rope(R"({"partial_rotary_factor": 0.5})"), UnsupportedError);
  EXPECT_THROW(rope(R"({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4,
                        "high_freq_factor": 4, "original_max_position_embeddings": 32}})"),
               FormatError);
  // transformers 4's rope_scaling, where it says something, goes before rope_parameters
  const Rope both = rope(R"({"rope_theta": 16, "rope_scaling": {"type": "linear", "factor": 2},
                             "rope_parameters": {"rope_type": "default", "rope_theta": 81}})");
  EXPECT_EQ(both.frequencies.to_vector(), (Floats{0.5f, 0.125f}));
  const Rope empty = rope(R"({"rope_theta": 16, "rope_scaling": null,
                              "rope_parameters": {"rope_type": "default", "rope_theta": 81}})");
  EXPECT_EQ(empty.frequencies.to_vector(), (Floats{1.0f, 1.0f / 9.0f}));
}

/// All layers over one input, with so many threads: every number of every result.
Floats everything(int threads) {
  Context ctx({.threads = threads, .log = {}});
  Floats all;
  const auto keep = [&](const Tensor& t) {
    const Floats values = t.to_vector();
    all.insert(all.end(), values.begin(), values.end());
  };
  const Weights w =
      checkpoint({{"weight", random_tensor({96}, 1)}, {"bias", random_tensor({96}, 2)}});
  const Weights conv =
      checkpoint({{"weight", random_tensor({96, 96, 3}, 3)}, {"bias", random_tensor({96}, 10)}});
  const Weights image =
      checkpoint({{"weight", random_tensor({96, 3, 8, 8}, 4)}, {"bias", random_tensor({96}, 11)}});
  const Linear up(random_tensor({801, 96}, 5), random_tensor({801}, 6));
  const Rope rope(Config(), 32);
  for (const std::int64_t rows : {1, 3, 40, 290}) {
    const Tensor x = random_tensor({rows, 96}, 7), y = random_tensor({290, 96}, 8);
    keep(up(ctx, x, {.activation = Activation::gelu, .residual = {}}));
    keep(LayerNorm(w, 96, 1e-5)(ctx, x));
    keep(RmsNorm(w, 96, 1e-5)(ctx, x));
    keep(Conv1d(conv, 96, 96, 3, 2, 1)(ctx, x));
    keep(attention(ctx, x, y, y, {.heads = 3, .kv_heads = 0, .causal = false, .scale = 0}));
    keep(attention(ctx, x, y, y, {.heads = 3, .kv_heads = 0, .causal = true, .scale = 0}));
    keep(add(ctx, x, x));
    keep(multiply(ctx, x, x));
    const std::vector<std::int64_t> positions(static_cast<std::size_t>(rows), 5);
    keep(rope(ctx, x, rope.angles(ctx, positions)));
  }
  keep(Conv2d(image, 3, 96, 8)(ctx, random_tensor({3, 75, 75}, 9)));
  return all;
}

TEST_F(Layers, ResultsDoNotDependOnTheNumberOfThreads) {
  const Floats one = everything(1);
  EXPECT_EQ(one, everything(2));
  EXPECT_EQ(one, everything(3));
}

/// However many rows each of them takes at a time.
TEST_F(Layers, ProductsDoNotDependOnTheNumberOfThreads) {
  for (const auto& [in, out] : {std::pair{384, 300}, {1536, 96}, {1000, 512}}) {
    const Linear linear(random_tensor({out, in}, 1), random_tensor({out}, 2));
    for (const std::int64_t rows : {16, 100, 523}) {
      const Tensor x = random_tensor({rows, in}, 3);
      const auto with = [&](int threads) {
        Context ctx({.threads = threads});
        return linear(ctx, x, {.activation = Activation::gelu}).to_vector();
      };
      const auto one = with(1);
      for (const int threads : {2, 3, 7, 16})
        EXPECT_EQ(one, with(threads)) << rows << " x " << in << ", " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace tessera
