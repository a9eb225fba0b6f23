// Every gradient beside finite differences.
#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/layers.h"
#include "core/loss.h"
#include "core/tape.h"
#include "train/autograd.h"
#include "unit/core_numbers.h"

namespace tessera::train {
namespace {

using testing::random_tensor;

using Function = std::function<Tensor(Context&)>;

/// sum(f() * weights), in double.
double weighted(Context& ctx, const Function& f, const Tensor& weights) {
  const Tensor y = f(ctx).to_f32();
  double sum = 0;
  for (std::int64_t i = 0; i < y.numel(); ++i)
    sum += static_cast<double>(y.data()[i]) * static_cast<double>(weights.data()[i]);
  return sum;
}

/// d weighted / d x by differences over four points (error h^4).
double difference(Context& ctx, const Function& f, const Tensor& weights, float& x) {
  constexpr float kStep = 0.02f;
  const float before = x;
  const auto at = [&](float step) {
    x = before + step;
    return weighted(ctx, f, weights);
  };
  const double near = at(kStep) - at(-kStep), far = at(2 * kStep) - at(-2 * kStep);
  x = before;
  return (8 * near - far) / (12 * static_cast<double>(kStep));
}

/// Checks the gradients of f() with respect to all numbers of `parameters` (contiguous, in memory
/// that f reads). Every output number has another weight in what is differentiated.
void check(const Function& f, std::vector<Tensor> parameters, const std::string& what,
           double tolerance = 2e-3) {
  Context ctx({.threads = 2});
  Tape tape;
  for (const Tensor& p : parameters) tape.watch(p);
  ctx.tape = &tape;
  const Tensor y = f(ctx), weights = random_tensor(y.shape(), 77);
  const Tensor result = multiply(ctx, y, weights);
  Gradients gradients;
  // Twice: the second time adds to the first.
  backward(ctx, tape, result, 0.25f, gradients);
  backward(
      ctx, tape, [&] { return multiply(ctx, f(ctx), weights); }(), 0.75f, gradients);
  ctx.tape = nullptr;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Tensor& p = parameters[i];
    const Tensor found = gradients.find(p);
    ASSERT_TRUE(found) << what << ": parameter " << i << " has no gradient";
    double largest = 1;
    for (const float g : found.to_vector())
      largest = std::max(largest, std::abs(static_cast<double>(g)));
    for (std::int64_t j = 0; j < p.numel(); ++j) {
      const double expected = difference(ctx, f, weights, p.data()[j]);
      ASSERT_NEAR(static_cast<double>(found.data()[j]), expected, tolerance * largest)
          << what << ": parameter " << i << ", number " << j << " of " << p.shape().str();
    }
  }
}

/// Numbers that keep away from 0, where some functions have a kink.
Tensor away_from_zero(const Shape& shape, std::uint32_t seed) {
  Tensor t = random_tensor(shape, seed);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data()[i] += t.data()[i] < 0 ? -0.1f : 0.1f;
  return t;
}

Weights weights_of(const std::vector<NamedTensor>& tensors) { return Weights::of(tensors); }

TEST(Gradients, Linear) {
  struct Size {
    std::int64_t rows, in, out;
  };
  for (const auto& [rows, in, out] : {Size{1, 1, 1}, {3, 5, 2}, {17, 19, 33}, {101, 3, 17}}) {
    const Tensor x = random_tensor({rows, in}, 1), w = random_tensor({out, in}, 2),
                 b = random_tensor({out}, 3), residual = random_tensor({rows, out}, 4);
    const Linear layer(weights_of({{"weight", w}, {"bias", b}}), in, out);
    check([&](Context& ctx) { return layer(ctx, x, {.residual = residual}); }, {x, w, b, residual},
          "linear " + std::to_string(rows));
    const Tensor turned = random_tensor({in, out}, 5);
    const Linear conv1d = Linear::conv1d(weights_of({{"weight", turned}, {"bias", b}}), in, out);
    check(
        [&](Context& ctx) {
          return conv1d(ctx, x, {.activation = Activation::gelu_tanh, .residual = residual});
        },
        {x, turned, b, residual}, "linear, inputs first " + std::to_string(rows));
  }
}

TEST(Gradients, LinearOfSeveralPartsAndItself) {
  const Tensor x = random_tensor({7, 5}, 1), q = random_tensor({6, 5}, 2),
               k = random_tensor({3, 5}, 3), bias = random_tensor({6}, 4),
               square = random_tensor({5, 5}, 5);
  const Weights w =
      weights_of({{"q.weight", q}, {"q.bias", bias}, {"k.weight", k}, {"s.weight", square}});
  const Linear both = Linear::concat({{w.at("q"), 6}, {w.at("k"), 3, Linear::Bias::none}}, 5);
  check([&](Context& ctx) { return both(ctx, x); }, {x, q, k, bias}, "two parts");
  const Linear same(w.at("s"), 5, 5, Linear::Bias::none);
  check([&](Context& ctx) { return same(ctx, x, {.residual = x}); }, {x, square},
        "its input is its residual");
}

TEST(Gradients, LowRankAdditions) {
  const Tensor x = random_tensor({7, 5}, 1), q = random_tensor({6, 5}, 2),
               k = random_tensor({3, 5}, 3), bias = random_tensor({6}, 4),
               a = random_tensor({2, 5}, 5), b = random_tensor({6, 2}, 6),
               residual = random_tensor({7, 9}, 7), one = Tensor::from(std::vector{0.7f}, {1}),
               none = Tensor::zeros({1});
  const Weights w = weights_of({{"q.weight", q},
                                {"q.bias", bias},
                                {"q.lora_A.weight", a},
                                {"q.lora_B.weight", b},
                                {"q.lora_scale", one},
                                {"q.lora_dropout", none},
                                {"k.weight", k}});
  const Linear both = Linear::concat({{w.at("q"), 6}, {w.at("k"), 3, Linear::Bias::none}}, 5);
  check([&](Context& ctx) { return both(ctx, x, {.residual = residual}); },
        {x, q, k, bias, a, b, residual}, "one part with an addition");
  check([&](Context& ctx) { return both(ctx, x, {.activation = Activation::gelu}); }, {x, a, b},
        "frozen weights");
}

TEST(Gradients, Norms) {
  for (const std::int64_t width : {2, 7, 16, 33}) {
    const Tensor x = random_tensor({67, width}, 1), w = random_tensor({width}, 2),
                 b = random_tensor({width}, 3);
    const LayerNorm layer(weights_of({{"weight", w}, {"bias", b}}), width, 0.1);
    check([&](Context& ctx) { return layer(ctx, x); }, {x, w, b}, "layer norm");
    const RmsNorm rms(weights_of({{"weight", w}}), width, 0.1);
    check([&](Context& ctx) { return rms(ctx, x); }, {x, w}, "rms norm");
  }
}

TEST(Gradients, TiedEmbedding) {
  const std::vector<std::int32_t> ids = {3, 0, 3, 3, 10, 7, 0};
  const Tensor table = random_tensor({11, 70}, 1);
  const Embedding embedding(weights_of({{"weight", table}}), 11, 70);
  check([&](Context& ctx) { return embedding(ctx, ids); }, {table}, "embedding");
  const Linear head = embedding.as_linear();
  check([&](Context& ctx) { return head(ctx, embedding(ctx, ids)); }, {table}, "tied", 4e-3);
}

TEST(Gradients, Activations) {
  using enum Activation;
  const Tensor x = away_from_zero({5, 13}, 1);
  for (std::int64_t i = 0; i < x.numel(); ++i) Tensor(x).data()[i] *= 4.0f;
  for (const Activation a :
       {none, relu, gelu, gelu_tanh, quick_gelu, silu, tanh, sigmoid, relu_squared, mish}) {
    check([&](Context& ctx) { return activate(ctx, a, x); }, {x},
          "activation " + std::to_string(static_cast<int>(a)));
  }
}

TEST(Gradients, SwiGluAndSums) {
  const Tensor x = random_tensor({9, 6}, 1), gate = random_tensor({11, 6}, 2),
               up = random_tensor({11, 6}, 3);
  const Weights w = weights_of({{"gate.weight", gate}, {"up.weight", up}});
  const Linear g(w.at("gate"), 6, 11, Linear::Bias::none), u(w.at("up"), 6, 11, Linear::Bias::none);
  check(
      [&](Context& ctx) {
        return multiply(ctx, g(ctx, x, {.activation = Activation::silu}), u(ctx, x));
      },
      {x, gate, up}, "SwiGLU");
  check([&](Context& ctx) { return add(ctx, x, add(ctx, x, x)); }, {x}, "sum of the same");
  check([&](Context& ctx) { return multiply(ctx, x, x); }, {x}, "square");
}

TEST(Gradients, Rope) {
  Rope rope;
  rope.frequencies = Tensor::from(std::vector<float>{1.0f, 0.3f, 0.01f}, {3});
  const Tensor x = random_tensor({5, 19}, 1);
  const std::vector<std::int64_t> positions = {0, 4, 5, 100, 7};
  check([&](Context& ctx) { return rope(ctx, x.columns(1, 19), rope.angles(ctx, positions)); }, {x},
        "rope");
}

TEST(Gradients, Attention) {
  struct Case {
    std::int64_t queries, keys, heads, kv_heads, width;
    bool causal;
  };
  for (const Case& c : {Case{1, 1, 1, 1, 1, false},
                        {1, 3, 2, 1, 5, true},
                        {7, 7, 3, 3, 6, true},
                        {53, 53, 1, 1, 17, true},
                        {5, 37, 4, 2, 3, false},
                        {49, 61, 2, 2, 8, true},
                        {3, 270, 1, 1, 4, false}}) {
    const Tensor q = random_tensor({c.queries, c.heads * c.width}, 1),
                 k = random_tensor({c.keys, c.kv_heads * c.width}, 2),
                 v = random_tensor({c.keys, c.kv_heads * c.width}, 3);
    const AttentionOptions options{
        .heads = c.heads, .kv_heads = c.kv_heads, .causal = c.causal, .scale = 0.7f};
    check([&](Context& ctx) { return attention(ctx, q, k, v, options); }, {q, k, v},
          "attention of " + std::to_string(c.queries) + " and " + std::to_string(c.keys));
  }
}

/// What attention's gradients of q, k and v are made of.
std::vector<std::vector<float>> attention_gradients(const std::vector<Tensor>& qkv,
                                                    const AttentionOptions& options, bool rounded) {
  Context ctx({.threads = 2});
  ctx.rounded_products = rounded;
  Tape tape;
  tape.set_seed(3);
  for (const Tensor& t : qkv) tape.watch(t);
  ctx.tape = &tape;
  const Tensor y = attention(ctx, qkv[0], qkv[1], qkv[2], options);
  const Tensor result = multiply(ctx, y, random_tensor(y.shape(), 77));
  Gradients gradients;
  backward(ctx, tape, result, 1, gradients);
  std::vector<std::vector<float>> all = {y.to_vector()};
  for (const Tensor& t : qkv) all.push_back(gradients.find(t).to_vector());
  return all;
}

/// The same by the book, of one head: P of all queries and keys at once, in f64.
std::vector<std::vector<double>> attention_gradients_by_the_book(const std::vector<Tensor>& qkv) {
  const Tensor &q = qkv[0], &k = qkv[1], &v = qkv[2];
  const std::int64_t queries = q.dim(0), keys = k.dim(0), width = q.dim(1);
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  const Tensor dy = random_tensor(q.shape(), 77);
  std::vector<std::vector<double>> d;
  for (const Tensor& t : {q, q, k, v}) d.emplace_back(t.numel());  // y and the gradients
  const auto dot = [&](const Tensor& a, std::int64_t i, const Tensor& b, std::int64_t j) {
    double sum = 0;
    for (std::int64_t c = 0; c < width; ++c)
      sum += static_cast<double>(a.data()[i * width + c]) *
             static_cast<double>(b.data()[j * width + c]);
    return sum;
  };
  const auto add = [&](std::size_t to, std::int64_t row, const Tensor& from, std::int64_t i,
                       double factor) {
    for (std::int64_t c = 0; c < width; ++c)
      d[to][static_cast<std::size_t>(row * width + c)] +=
          factor * static_cast<double>(from.data()[i * width + c]);
  };
  for (std::int64_t i = 0; i < queries; ++i) {
    const std::int64_t seen = keys - queries + i + 1;
    std::vector<double> p;
    double total = 0, sum = 0;
    for (std::int64_t j = 0; j < seen; ++j) p.push_back(std::exp(dot(q, i, k, j) * scale));
    for (const double e : p) total += e;
    for (std::int64_t j = 0; j < seen; ++j) {
      p[static_cast<std::size_t>(j)] /= total;
      sum += p[static_cast<std::size_t>(j)] * dot(dy, i, v, j);
    }
    for (std::int64_t j = 0; j < seen; ++j) {
      const double weight = p[static_cast<std::size_t>(j)];
      const double slope = weight * (dot(dy, i, v, j) - sum) * scale;
      add(0, i, v, j, weight);
      add(1, i, k, j, slope);
      add(2, j, q, i, slope);
      add(3, j, dy, i, weight);
    }
  }
  return d;
}

TEST(Gradients, AttentionOfSeveralBlocksOfQueriesAndKeys) {
  for (const auto& [queries, keys] :
       {std::pair{205, 205}, std::pair{193, 410}, std::pair{390, 391}}) {
    const std::vector<Tensor> qkv = {random_tensor({queries, 5}, 1), random_tensor({keys, 5}, 2),
                                     random_tensor({keys, 5}, 3)};
    const auto found = attention_gradients(qkv, {.causal = true}, false);
    const auto expected = attention_gradients_by_the_book(qkv);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      for (std::size_t j = 0; j < expected[i].size(); ++j)
        ASSERT_NEAR(static_cast<double>(found[i][j]), expected[i][j], 2e-5)
            << queries << " x " << keys << ": " << i << ", " << j;
    }
  }
}

TEST(Gradients, AttentionOfNumbersRoundedToBf16IsNearTheExactOne) {
  if (!kernels::vector_kernels().half.native)
    GTEST_SKIP() << "this machine multiplies no bf16 numbers";
  struct Case {
    std::int64_t queries, keys, heads, kv_heads, width;
    bool causal;
    float dropout = 0;
  };
  for (const Case& c : {Case{200, 200, 2, 2, 64, true},
                        {400, 400, 2, 2, 64, true},
                        {197, 197, 3, 3, 64, false},
                        {97, 131, 4, 2, 33, true},
                        {12, 5, 1, 1, 5, false},
                        {31, 270, 2, 1, 600, false},
                        {53, 53, 2, 2, 16, true, 0.3f}}) {
    const std::vector<Tensor> qkv = {random_tensor({c.queries, c.heads * c.width}, 1),
                                     random_tensor({c.keys, c.kv_heads * c.width}, 2),
                                     random_tensor({c.keys, c.kv_heads * c.width}, 3)};
    const AttentionOptions options{
        .heads = c.heads, .kv_heads = c.kv_heads, .causal = c.causal, .dropout = c.dropout};
    const auto exact = attention_gradients(qkv, options, false),
               rounded = attention_gradients(qkv, options, true);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      double error = 0, size = 0;
      for (std::size_t j = 0; j < exact[i].size(); ++j) {
        error += std::pow(static_cast<double>(rounded[i][j] - exact[i][j]), 2);
        size += std::pow(static_cast<double>(exact[i][j]), 2);
      }
      // A number of 8 bits is off by 2^-9 at most, of which several meet in every sum.
      EXPECT_LT(std::sqrt(error / size), 1e-2) << c.queries << " x " << c.keys << ": " << i;
      EXPECT_GT(error, 0) << c.queries << " x " << c.keys << ": " << i << " was not rounded";
    }
  }
}

TEST(Gradients, AttentionOfViewsIntoPartsOfOneOutput) {
  const Tensor qkv = random_tensor({11, 18}, 1);
  check(
      [&](Context& ctx) {
        Tensor out = ctx.empty({11, 6});
        for (const auto& [begin, end] : {std::pair{0, 4}, std::pair{4, 11}}) {
          const Tensor rows = qkv.slice(begin, end);
          Tensor own = out.slice(begin, end);
          attention(ctx, rows.columns(0, 6), rows.columns(6, 12), rows.columns(12, 18),
                    {.heads = 2, .causal = true}, own);
        }
        return out;
      },
      {qkv}, "two sequences");
}

TEST(Gradients, AttentionOfSeveralItems) {
  const Tensor qkv = random_tensor({14, 18}, 1);
  const std::vector<std::int64_t> begin = {0, 4, 5, 14};
  for (const float dropout : {0.0f, 0.4f}) {
    const AttentionOptions options{.heads = 2, .causal = true, .dropout = dropout};
    const auto attend = [&](Context& ctx) {
      Tape own;
      const TapeScope recording(ctx, ctx.tape ? ctx.tape : &own);
      ctx.tape->set_seed(6);
      return attention(ctx, qkv.columns(0, 6), qkv.columns(6, 12), qkv.columns(12, 18), options,
                       begin);
    };
    check(attend, {qkv}, "three items");
    Context ctx({.threads = 2}), one({.threads = 1});
    EXPECT_EQ(attend(ctx).to_vector(), attend(one).to_vector());
  }
}

TEST(Gradients, Convolutions) {
  for (const std::int64_t stride : {1, 2}) {
    const Tensor x = random_tensor({9, 3}, 1), w = random_tensor({4, 3, 3}, 2),
                 b = random_tensor({4}, 3);
    const Conv1d conv(weights_of({{"weight", w}, {"bias", b}}), 3, 4, 3, stride, 1);
    check([&](Context& ctx) { return conv(ctx, x, Activation::gelu); }, {x, w, b}, "conv1d");
  }
  const Tensor pixels = random_tensor({3, 7, 5}, 4), w = random_tensor({4, 3, 2, 2}, 5),
               b = random_tensor({4}, 6);
  const Conv2d patches(weights_of({{"weight", w}, {"bias", b}}), 3, 4, 2);
  check([&](Context& ctx) { return patches(ctx, pixels); }, {pixels, w, b}, "patches");
}

TEST(Gradients, InPlaceConvolutionIsThePackedOne) {
  const Tensor x = random_tensor({9, 3}, 1), w = random_tensor({4, 3, 3}, 2),
               b = random_tensor({4}, 3);
  const Weights in_place = weights_of({{"weight", w}, {"bias", b}});
  Context ctx;
  EXPECT_TRUE(testing::close(
      Conv1d(in_place, 3, 4, 3, 2, 1)(ctx, x).to_vector(),
      Conv1d(in_place.with(Precision::f32), 3, 4, 3, 2, 1)(ctx, x).to_vector(), 1e-6));
}

TEST(Gradients, JoinedAndScaledRows) {
  const Tensor a = random_tensor({3, 9}, 1), b = random_tensor({5, 9}, 2);
  check([&](Context& ctx) { return join_rows(ctx, {a, b.columns(0, 9), a}); }, {a, b}, "joined");
  check(
      [&](Context& ctx) {
        return join_rows(ctx, {a.columns(2, 6), b.columns(0, 4)});
      },
      {a, b}, "parts of rows");
  check([&](Context& ctx) { return scaled(ctx, a, -0.7f); }, {a}, "scaled");
  check(
      [&](Context& ctx) {
        return join_rows(ctx, {a, b}).reshape({4, 18}).columns(3, 16);
      },
      {a, b}, "two rows as one");
}

TEST(Gradients, Dropout) {
  const Tensor x = random_tensor({13, 40}, 1);
  Context ctx;
  EXPECT_EQ(dropout(ctx, x, 0.5f).memory(), x.memory()) << "without a tape, nothing is dropped";
  Tape tape;
  tape.watch(x);
  ctx.tape = &tape;
  tape.set_seed(7);
  const Tensor once = dropout(ctx, x, 0.25f).clone(), other = dropout(ctx, x, 0.25f).clone();
  EXPECT_NE(once.to_vector(), other.to_vector());
  Gradients gradients;
  tape.clear();
  tape.set_seed(7);
  const Tensor again = dropout(ctx, x, 0.25f);
  EXPECT_EQ(once.to_vector(), again.to_vector()) << "same seed, same zeros";
  backward(ctx, tape, again, 1.0f, gradients);
  std::int64_t zeros = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    zeros += once.data()[i] == 0;
    EXPECT_FLOAT_EQ(gradients.find(x).data()[i], once.data()[i] == 0 ? 0.0f : 1 / 0.75f);
  }
  EXPECT_NEAR(static_cast<double>(zeros), 0.25 * 520, 40);
}

/// attention() with a tape that always draws the same.
Tensor dropping_attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const AttentionOptions& options, std::uint64_t seed) {
  Tape own;
  const TapeScope recording(ctx, ctx.tape ? ctx.tape : &own);
  ctx.tape->set_seed(seed);
  return attention(ctx, q, k, v, options);
}

TEST(Gradients, AttentionDropout) {
  struct Case {
    std::int64_t queries, keys, heads, kv_heads, width;
    bool causal;
  };
  for (const Case& c : {Case{1, 1, 1, 1, 1, false},
                        {1, 3, 2, 1, 5, true},
                        {7, 7, 3, 3, 6, true},
                        {53, 53, 1, 1, 17, true},
                        {5, 37, 4, 2, 3, false},
                        {3, 270, 1, 1, 4, false}}) {
    const Tensor q = random_tensor({c.queries, c.heads * c.width}, 1),
                 k = random_tensor({c.keys, c.kv_heads * c.width}, 2),
                 v = random_tensor({c.keys, c.kv_heads * c.width}, 3);
    const AttentionOptions options{.heads = c.heads,
                                   .kv_heads = c.kv_heads,
                                   .causal = c.causal,
                                   .scale = 0.7f,
                                   .dropout = 0.4f};
    check([&](Context& ctx) { return dropping_attention(ctx, q, k, v, options, 6); }, {q, k, v},
          "attention of " + std::to_string(c.queries) + " and " + std::to_string(c.keys));
  }
}

TEST(Gradients, AttentionDropsTheShareAndKeepsTheMean) {
  // Equal scores, and the values are the unit matrix: what comes out are the weights.
  constexpr std::int64_t kKeys = 64, kHeads = 2;
  const Tensor q = Tensor::zeros({50, kHeads * kKeys}), k = random_tensor({kKeys, kKeys}, 2);
  const Tensor v = Tensor::zeros({kKeys, kKeys});
  for (std::int64_t i = 0; i < kKeys; ++i) Tensor(v).data()[i * kKeys + i] = 1;
  const AttentionOptions options{.heads = kHeads, .kv_heads = 1, .dropout = 0.25f};
  Context ctx({.threads = 2}), one({.threads = 1});
  const std::vector<float> whole = attention(ctx, q, k, v, options).to_vector();
  for (const float weight : whole) ASSERT_FLOAT_EQ(weight, 1.0f / kKeys) << "no tape, no dropout";
  std::vector<double> mean(whole.size());
  std::int64_t zeros = 0;
  constexpr int kDraws = 400;
  for (std::uint64_t seed = 0; seed < kDraws; ++seed) {
    const std::vector<float> weights = dropping_attention(ctx, q, k, v, options, seed).to_vector();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      ASSERT_FLOAT_EQ(weights[i], weights[i] == 0 ? 0.0f : 1.0f / kKeys / 0.75f);
      zeros += weights[i] == 0;
      mean[i] += static_cast<double>(weights[i]) * kKeys / kDraws;
    }
  }
  EXPECT_NEAR(static_cast<double>(zeros) / kDraws / static_cast<double>(whole.size()), 0.25, 1e-3);
  // Of one weight the mean has a deviation of sqrt(0.25 / 0.75 / 400) = 0.029.
  for (const double m : mean) ASSERT_NEAR(m, 1, 6 * 0.029);
  const auto weights = [&](Context& c, std::uint64_t seed) {
    return dropping_attention(c, q, k, v, options, seed).to_vector();
  };
  EXPECT_EQ(weights(ctx, 1), weights(ctx, 1));
  EXPECT_EQ(weights(ctx, 1), weights(one, 1)) << "the same on one thread";
  EXPECT_NE(weights(ctx, 1), weights(ctx, 2));
  AttentionOptions all = options;
  all.dropout = 1;
  EXPECT_THROW(dropping_attention(ctx, q, k, v, all, 1), ArgumentError);
}

TEST(Gradients, ASegmentKeepsItsInputAlone) {
  const Tensor x = random_tensor({9, 6}, 1), w = random_tensor({6, 6}, 2),
               b = random_tensor({6}, 3), frozen = random_tensor({6, 6}, 4);
  const Linear layer(weights_of({{"weight", w}, {"bias", b}}), 6, 6),
      still(frozen, {}, Precision::in_place);
  int runs = 0;
  const auto run = [&](Context& ctx, const Tensor& in) {
    ++runs;
    const Tensor h = layer(ctx, in, {.activation = Activation::gelu});
    return dropout(ctx, add(ctx, h, in), ctx.tape ? 0.3f : 0.0f);
  };
  const auto gradients_of = [&](bool again, const std::vector<Tensor>& watched) {
    Context ctx({.threads = 2});
    Tape tape;
    tape.keeps_inputs_only = again;
    tape.set_seed(4);
    for (const Tensor& t : watched) tape.watch(t);
    const TapeScope recording(ctx, &tape);
    const Tensor h = checkpointed(ctx, still(ctx, x), run),
                 y = dropout(ctx, checkpointed(ctx, h, run), 0.5f);
    EXPECT_EQ(tape.records().size(), again ? 3u + tape.wants(x) : 9u + tape.wants(x));
    Gradients gradients;
    backward(ctx, tape, y, 1.0f, gradients);
    std::vector<std::vector<float>> found = {y.to_vector()};
    for (const Tensor& t : watched) found.push_back(gradients.find(t).to_vector());
    return found;
  };
  EXPECT_EQ(gradients_of(true, {w, b}), gradients_of(false, {w, b}));
  EXPECT_EQ(runs, 6) << "two there and two again; two that are kept";
  EXPECT_EQ(gradients_of(true, {b}), gradients_of(false, {b}));
  EXPECT_EQ(gradients_of(true, {x, w}), gradients_of(false, {x, w}));
}

TEST(Gradients, ASegmentOfNothingThatIsWantedIsNotKept) {
  const Tensor x = random_tensor({3, 4}, 1), w = random_tensor({4, 4}, 2);
  const Linear layer(w, {}, Precision::in_place);
  Context ctx;
  Tape tape;
  tape.keeps_inputs_only = true;
  tape.watch(random_tensor({2}, 3));
  const TapeScope recording(ctx, &tape);
  const auto run = [&](Context& c, const Tensor& in) { return layer(c, in); };
  const Tensor y = checkpointed(ctx, x, run);
  EXPECT_EQ(tape.records().size(), 0u);
  EXPECT_FALSE(tape.wants(y));
  tape.watch(x);
  const auto nothing = [](Context&, const Tensor& in) { return in; };
  EXPECT_EQ(checkpointed(ctx, x, nothing).memory(), x.memory());
  EXPECT_EQ(tape.records().size(), 0u);
  const auto fails = [](Context&, const Tensor&) -> Tensor { throw ShapeError("no"); };
  EXPECT_THROW(checkpointed(ctx, x, fails), ShapeError);
  EXPECT_EQ(ctx.tape, &tape);
  const TapeScope none(ctx, nullptr);
  EXPECT_TRUE(checkpointed(ctx, x, run)) << "without a tape it simply runs";
}

TEST(Gradients, CrossEntropy) {
  const Tensor logits = random_tensor({5, 23}, 1);
  for (std::int64_t i = 0; i < logits.numel(); ++i) Tensor(logits).data()[i] *= 3.0f;
  const std::vector<std::int32_t> targets = {22, 0, kIgnored, 7, 7};
  EXPECT_EQ(counted(targets), 4);
  for (const float smoothing : {0.0f, 0.1f}) {
    check([&](Context& ctx) { return cross_entropy(ctx, logits, targets, smoothing); }, {logits},
          "cross entropy");
  }
  const std::vector<float> weights = {0.5f, -2, 0, 3, 1};
  const Tensor five = random_tensor({5, 7}, 8);
  const std::vector<std::int32_t> classes = {1, 6, 0, 3, 3};
  check([&](Context& ctx) { return cross_entropy(ctx, five, classes, 0, weights); }, {five},
        "weighted cross entropy");
}

TEST(Gradients, CrossEntropyOfAnOutputLayer) {
  const Tensor x = random_tensor({5, 3}, 1), w = random_tensor({23, 3}, 2),
               b = random_tensor({23}, 3);
  const std::vector<std::int32_t> targets = {22, 0, kIgnored, 7, 7};
  const std::vector<float> weights = {0.5f, -2, 1, 3, 1};
  const auto loss = [&](const Linear& head, float smoothing, std::span<const float> factors) {
    return [&, smoothing, factors](Context& ctx) {
      return cross_entropy(ctx, head, x, targets, smoothing, factors).loss;
    };
  };
  const Linear plain(w, {}, Precision::in_place), with_bias(w, b, Precision::in_place);
  check(loss(plain, 0, {}), {x, w}, "plain");
  check(loss(plain, 0.1f, weights), {x, w}, "smoothed and weighted");
  check(loss(plain, 0, {}), {x}, "frozen output layer");
  check(loss(plain, 0, {}), {w}, "frozen rows");
  check(loss(with_bias, 0.1f, weights), {x, w, b}, "with a bias");
  const auto of_nothing = [&](Context& ctx) {
    return cross_entropy(ctx, plain, x.slice(0, 0), {}).loss;
  };
  check(of_nothing, {w}, "no rows");
}

// More logits than are made at a time.
TEST(Gradients, CrossEntropyInPiecesIsThatOfAllLogits) {
  constexpr std::int64_t kVocab = 1 << 21, kRows = 41;
  const Tensor x = random_tensor({kRows, 2}, 1), w = random_tensor({kVocab, 2}, 2);
  const Linear head(w, {}, Precision::in_place);
  std::vector<std::int32_t> targets(kRows);
  for (std::size_t i = 0; i < targets.size(); ++i)
    targets[i] = static_cast<std::int32_t>(i * 50'000);
  Context ctx({.threads = 2});
  const Tensor logits = head(ctx, x);
  for (const std::size_t i : {0U, 21U, 40U}) {  // some are right
    const float* row = logits.data() + static_cast<std::int64_t>(i) * kVocab;
    targets[i] = static_cast<std::int32_t>(std::max_element(row, row + kVocab) - row);
  }
  const auto gradients_of = [&](const Function& f) {
    Tape tape;
    tape.watch(x);
    tape.watch(w);
    const TapeScope recording(ctx, &tape);
    Gradients gradients;
    const Tensor loss = f(ctx);
    backward(ctx, tape, loss, 0.5f, gradients);
    return std::vector{loss.clone(), gradients.find(x).clone(), gradients.find(w).clone()};
  };
  const std::vector<Tensor> whole = gradients_of([&](Context&c) {
    return cross_entropy(c, head(c, x), targets, 0.1f);
  }),
                            pieces = gradients_of([&](Context&c) {
                              const TokenLoss sum = cross_entropy(c, head, x, targets, 0.1f);
                              EXPECT_EQ(sum.right, 3);
                              return sum.loss;
                            });
  EXPECT_EQ(pieces[0].data()[0], whole[0].data()[0]);
  for (std::size_t i = 1; i < whole.size(); ++i) {
    const std::vector<float> expected = whole[i].to_vector(), found = pieces[i].to_vector();
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t j = 0; j < found.size(); ++j)
      ASSERT_NEAR(found[j], expected[j], 2e-6f) << i << ", number " << j;
  }
  const TokenLoss unlearnt = cross_entropy(ctx, head, x, targets, 0.1f);
  EXPECT_EQ(unlearnt.loss.data()[0], whole[0].data()[0]);
  EXPECT_EQ(unlearnt.right, 3);
  targets[40] = kVocab;
  EXPECT_THROW(cross_entropy(ctx, head, x, targets), ArgumentError);
  EXPECT_THROW(cross_entropy(ctx, head, x.slice(0, 5), targets), ShapeError);
}

/// factor f(a i + b j) for row i and column j.
Tensor wave(std::int64_t rows, std::int64_t columns, double factor, double step, double turn,
            double (*f)(double)) {
  Tensor t = Tensor::empty({rows, columns});
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j)
      t.data()[i * columns + j] = static_cast<float>(
          factor * f(step * static_cast<double>(i * columns + j) + turn * static_cast<double>(i)));
  }
  return t;
}

// Values of torch.nn.functional.ctc_loss in f64.
TEST(Gradients, ConnectionistTemporalClassification) {
  const Tensor logits = wave(9, 5, 3, 1.7, 0, std::sin);
  Context ctx;
  const struct {
    std::vector<std::int32_t> targets;
    std::int32_t blank;
    float loss;
  } cases[] = {{{1, 2, 2, 4}, 0, 12.483470f},
               {{3}, 0, 24.242673f},
               {{}, 0, 29.367852f},
               {{0, 1, 0, 0}, 4, 19.315268f}};
  for (const auto& [targets, blank, loss] : cases) {
    EXPECT_NEAR(ctc_loss(ctx, logits, targets, blank).data()[0], loss, 1e-4f);
    check([&](Context& c) { return ctc_loss(c, logits, targets, blank); }, {logits}, "CTC");
  }
  const std::vector<std::int32_t> many = {1, 1, 1, 1, 1, 1}, none = {0}, far = {5};
  EXPECT_THROW(ctc_loss(ctx, logits, many), ArgumentError) << "six that are alike need 11 frames";
  EXPECT_THROW(ctc_loss(ctx, logits, none), ArgumentError);
  EXPECT_THROW(ctc_loss(ctx, logits, far), ArgumentError);
}

// Values of CLIP's loss by PyTorch in f64.
TEST(Gradients, ContrastiveLoss) {
  const Tensor a = wave(4, 7, 1, 1.3, 0, std::sin), b = wave(4, 7, 1, 0.9, 1, std::cos);
  Context ctx;
  EXPECT_NEAR(contrastive_loss(ctx, a, b).data()[0], 29.110001f, 1e-3f);
  EXPECT_NEAR(contrastive_loss(ctx, a, b, 0.5f).data()[0], 6.728936f, 1e-4f);
  check([&](Context& c) { return contrastive_loss(c, a, b, 0.5f); }, {a, b}, "contrastive loss");
  EXPECT_THROW(contrastive_loss(ctx, a, random_tensor({3, 7}, 1)), ShapeError);
}

// Values and gradients of CLIP's loss with a learnt scale by PyTorch in f64.
TEST(Gradients, ContrastiveLossWithALearntScale) {
  const Tensor a = wave(4, 7, 1, 1.3, 0, std::sin), b = wave(4, 7, 1, 0.9, 1, std::cos);
  const struct {
    float scale, loss, of_scale, of_a;
  } cases[] = {{1.2f, 8.528366f, 5.107048f, -0.12505038f},
               {-std::log(0.07f), 29.110001f, 28.032728f, 0.07112267f}};
  for (const auto& [scale, loss, of_scale, of_a] : cases) {
    Context ctx;
    const Tensor s = Tensor::from(std::vector{scale}, Shape());  // as HF has it
    Tape tape;
    for (const Tensor& t : {a, b, s}) tape.watch(t);
    ctx.tape = &tape;
    const Tensor result = contrastive_loss(ctx, a, b, s);
    EXPECT_NEAR(result.data()[0], loss, 1e-5f * loss);
    Gradients gradients;
    backward(ctx, tape, result, 1, gradients);
    EXPECT_NEAR(gradients.find(s).data()[0], of_scale, 1e-5f * of_scale);
    EXPECT_NEAR(gradients.find(a).data()[0], of_a, 1e-5f);
  }
  const Tensor s = Tensor::from(std::vector{1.2f}, {1});
  check([&](Context& c) { return contrastive_loss(c, a, b, s); }, {a, b, s}, "learnt scale");
  check([&](Context& c) { return contrastive_loss(c, a, b, s); }, {b}, "rows alone");
  check([&](Context& c) { return contrastive_loss(c, a, b, s); }, {s}, "scale alone");
  Context ctx;
  EXPECT_THROW(contrastive_loss(ctx, a, b, random_tensor({2}, 1)), ShapeError);
  EXPECT_THROW(contrastive_loss(ctx, a, b, 0.0f), ArgumentError);
}

// Values and gradients of SigLIP's loss by PyTorch in f64.
TEST(Gradients, SigmoidPairLoss) {
  const Tensor a = wave(4, 7, 1, 1.3, 0, std::sin), b = wave(4, 7, 1, 0.9, 1, std::cos);
  const struct {
    float scale, bias, loss, of_scale, of_bias, of_a;
  } cases[] = {{1.2f, -0.7f, 12.890388f, 6.7843686f, 2.5807430f, 0.03856875f},
               {std::log(10.0f), -10, 37.812873f, -1.7036850f, -3.9087101f, -2.7077822f}};
  for (const auto& [scale, bias, loss, of_scale, of_bias, of_a] : cases) {
    Context ctx;
    const Tensor s = Tensor::from(std::vector{scale}, Shape()),  // as HF has them
        t = Tensor::from(std::vector{bias}, {1});
    Tape tape;
    for (const Tensor& x : {a, b, s, t}) tape.watch(x);
    ctx.tape = &tape;
    const Tensor result = sigmoid_pair_loss(ctx, a, b, s, t);
    EXPECT_NEAR(result.data()[0], loss, 1e-5f * loss);
    Gradients gradients;
    backward(ctx, tape, result, 1, gradients);
    EXPECT_NEAR(gradients.find(s).data()[0], of_scale, 1e-5f * std::abs(of_scale));
    EXPECT_NEAR(gradients.find(t).data()[0], of_bias, 1e-5f * std::abs(of_bias));
    EXPECT_NEAR(gradients.find(a).data()[0], of_a, 1e-5f);
  }
  const Tensor s = Tensor::from(std::vector{1.2f}, {1}), t = Tensor::from(std::vector{-0.7f}, {1});
  const auto loss = [&](Context& c) { return sigmoid_pair_loss(c, a, b, s, t); };
  check(loss, {a, b, s, t}, "all");
  check(loss, {b}, "rows alone");
  check(loss, {t}, "bias alone");
  Context ctx;
  EXPECT_THROW(sigmoid_pair_loss(ctx, a, random_tensor({3, 7}, 1), s, t), ShapeError);
  EXPECT_THROW(sigmoid_pair_loss(ctx, a, b, s, random_tensor({2}, 1)), ShapeError);
}

TEST(Gradients, FrozenTensorsAreNotRecorded) {
  const Tensor x = random_tensor({3, 4}, 1), frozen = random_tensor({4, 4}, 2),
               trained = random_tensor({4, 4}, 3);
  const Linear below(frozen, {}, Precision::in_place), above(trained, {}, Precision::in_place);
  Context ctx;
  Tape tape;
  tape.watch(trained);
  ctx.tape = &tape;
  const Tensor y = above(ctx, below(ctx, x));
  EXPECT_EQ(tape.records().size(), 1u);
  Gradients gradients;
  backward(ctx, tape, y, 1.0f, gradients);
  EXPECT_TRUE(gradients.find(trained));
  EXPECT_FALSE(gradients.find(frozen));
  EXPECT_FALSE(gradients.find(x));
}

TEST(Gradients, SameForAnyNumberOfThreads) {
  const Tensor x = random_tensor({300, 70}, 1), w = random_tensor({90, 70}, 2),
               b = random_tensor({90}, 3), norm = random_tensor({90}, 4);
  std::vector<std::vector<float>> found;
  for (const int threads : {1, 2, 3}) {
    Context ctx({.threads = threads});
    Tape tape;
    for (const Tensor& t : {x, w, b, norm}) tape.watch(t);
    ctx.tape = &tape;
    const Linear linear(weights_of({{"weight", w}, {"bias", b}}), 70, 90);
    const Tensor h = LayerNorm(weights_of({{"weight", norm}, {"bias", b}}), 90, 1e-5)(
        ctx, linear(ctx, x, {.activation = Activation::gelu}));
    const Tensor y = attention(ctx, h.columns(0, 30), h.columns(30, 60), h.columns(60, 90),
                               {.heads = 3, .causal = true});
    Gradients gradients;
    backward(ctx, tape, y, 1.0f, gradients);
    found.emplace_back();
    for (const Tensor& t : {x, w, b, norm})
      for (const float g : gradients.find(t).to_vector()) found.back().push_back(g);
  }
  EXPECT_EQ(found[0], found[1]);
  EXPECT_EQ(found[0], found[2]);
}

}  // namespace
}  // namespace tessera::train
