// Micro-benchmarks of the layers on the shapes of well-known models, with Google Benchmark:
//     bench_kernels --benchmark_filter=linear --benchmark_repetitions=5
#include <benchmark/benchmark.h>

#include "audio/log_mel.h"
#include "core/layers.h"

namespace {

using namespace tessera;

Context& context() {
  static Context ctx;
  return ctx;
}

Tensor numbers(const Shape& shape) {
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data()[i] = static_cast<float>(i * 7919 % 1009) / 1009 - 0.5f;
  return t;
}

void rates(benchmark::State& state, double operations, double bytes) {
  using benchmark::Counter;
  state.counters["FLOP/s"] = Counter(operations, Counter::kIsIterationInvariantRate);
  state.counters["B/s"] = Counter(bytes, Counter::kIsIterationInvariantRate);
}

/// rows, in, out
void linear(benchmark::State& state) {
  const std::int64_t m = state.range(0), k = state.range(1), n = state.range(2);
  const Linear layer(numbers({n, k}), numbers({n}));
  const Tensor x = numbers({m, k});
  for (auto _ : state) benchmark::DoNotOptimize(layer(context(), x).data());
  rates(state, 2.0 * static_cast<double>(m * k * n), static_cast<double>(layer.bytes()));
}

/// queries, keys, heads, heads of keys, width of a head
void attention_of(benchmark::State& state) {
  const std::int64_t width = state.range(4), heads = state.range(2), kv_heads = state.range(3);
  const Tensor q = numbers({state.range(0), heads * width});
  const Tensor k = numbers({state.range(1), kv_heads * width});
  const AttentionOptions options{.heads = heads, .kv_heads = kv_heads};
  for (auto _ : state) benchmark::DoNotOptimize(attention(context(), q, k, k, options).data());
  rates(state, 4.0 * static_cast<double>(q.numel() * k.dim(0)),
        8.0 * static_cast<double>(k.numel()));
}

/// rows, width
void layer_norm(benchmark::State& state) {
  LayerNorm norm;
  norm.weight = numbers({state.range(1)});
  norm.bias = numbers({state.range(1)});
  const Tensor x = numbers({state.range(0), state.range(1)});
  for (auto _ : state) benchmark::DoNotOptimize(norm(context(), x).data());
  rates(state, 0, 8.0 * static_cast<double>(x.numel()));
}

/// seconds of sound
void log_mel(benchmark::State& state) {
  const audio::LogMel mel;
  const Tensor sound = numbers({16000 * state.range(0)});
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        mel(context(), {sound.data(), static_cast<std::size_t>(sound.numel())}).data());
  }
}

BENCHMARK(linear)
    ->ArgNames({"rows", "in", "out"})
    ->ArgsProduct({{1, 4, 16, 512}, {576}, {1536}})  // SmolLM2-135M
    ->ArgsProduct({{1, 5}, {384}, {51864}})          // the vocabulary of Whisper tiny
    ->ArgsProduct({{1, 512}, {2048}, {8192}})        // Llama-3.2-1B
    ->Args({1500, 384, 1152})                        // Whisper tiny
    ->Args({1500, 768, 3072})                        // Whisper small
    ->Args({197, 768, 3072})                         // ViT-B/16-224
    ->UseRealTime();
BENCHMARK(attention_of)
    ->Name("attention")
    ->ArgNames({"queries", "keys", "heads", "kv_heads", "width"})
    ->Args({1500, 1500, 6, 6, 64})  // Whisper tiny's encoder
    ->Args({1, 1500, 6, 6, 64})     // one step over its rows
    ->Args({197, 197, 12, 12, 64})  // ViT-B/16-224
    ->Args({512, 512, 32, 8, 64})   // Llama-3.2-1B
    ->Args({1, 1024, 32, 8, 64})
    ->UseRealTime();
BENCHMARK(layer_norm)
    ->ArgNames({"rows", "width"})
    ->Args({1500, 384})
    ->Args({1, 768})
    ->UseRealTime();
BENCHMARK(log_mel)->ArgNames({"seconds"})->Arg(1)->Arg(30)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
