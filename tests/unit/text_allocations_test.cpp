// How much memory a decoding step asks the system for, counted by an operator new of our own.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "golden/fixture.h"
#include "text/generate.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<std::int64_t> taken{0};

void* take(std::size_t bytes, std::size_t alignment) {
  if (counting.load(std::memory_order_relaxed)) ++taken;
  const std::size_t whole =
      (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, whole);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return take(bytes, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t a) {
  return take(bytes, static_cast<std::size_t>(a));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace tessera::text {
namespace {

/// Allocations of each step, from the 8th token on.
std::vector<std::int64_t> count_steps(const char* family, const SamplingOptions& options) {
  const golden::Case checkpoint(family);
  const auto model = load_language_model(checkpoint.config(), checkpoint.weights());
  Context ctx({.threads = 2});
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  std::vector<std::int64_t> counts;
  counts.reserve(1000);
  GenerateHooks hooks;
  int step = 0;
  hooks.cancelled = [&] {  // asked once a step
    counting = false;
    if (step++ > 8) counts.push_back(taken);
    taken = 0;
    counting = true;
    return false;
  };
  generate(ctx, *model, nullptr, {model->new_cache(), model->embed(ctx, prompt), prompt}, options,
           hooks);
  counting = false;
  return counts;
}

/// Numbers go to pooled memory, lists of what is to be done to that of Context::lists().
void expect_none(const SamplingOptions& options) {
  for (const char* family : {"gpt2-base", "llama-published", "llama-tied-grouped"}) {
    const auto counts = count_steps(family, options);
    ASSERT_GE(counts.size(), 10u);
    for (const std::int64_t step : counts) EXPECT_EQ(step, 0) << family;
  }
}

TEST(Allocations, AStepMakesNone) {
  SamplingOptions options;
  options.max_new_tokens = 24;
  expect_none(options);
}

TEST(Allocations, AStepOfBeamsMakesNone) {
  SamplingOptions options;
  options.max_new_tokens = 40;
  options.num_beams = 4;
  expect_none(options);
  // Beams that end, and better ones after them.
  options.stop_tokens = {5, 7, 11, 13};
  options.early_stopping = SamplingOptions::EarlyStopping::never;
  options.length_penalty = 2;
  expect_none(options);
}

}  // namespace
}  // namespace tessera::text
