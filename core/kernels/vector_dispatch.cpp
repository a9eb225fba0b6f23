#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "core/kernels/vector.h"

namespace tessera::kernels {

extern const VectorKernels kGenericKernels;
#if defined(__x86_64__)
extern const VectorKernels kAvx2Kernels;
extern const VectorKernels kAvxVnniKernels;
extern const VectorKernels kAvx512Kernels;
extern const VectorKernels kAvx512VnniKernels;
extern const VectorKernels kAvx512Bf16Kernels;
#endif

namespace {

struct Candidate {
  const VectorKernels* kernels;
  bool available;
};

const VectorKernels& choose() {
  const char* forced = std::getenv("TESSERA_ISA");
  if (const VectorKernels* kernels = forced ? vector_kernels(forced) : nullptr) return *kernels;
  for (const char* name : {"avx512_bf16", "avx512_vnni", "avx512", "avx_vnni", "avx2"}) {
    if (const VectorKernels* kernels = vector_kernels(name)) return *kernels;
  }
  return kGenericKernels;
}

}  // namespace

const VectorKernels* vector_kernels(const char* name) {
#if defined(__x86_64__)
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  const Candidate all[] = {
    {&kGenericKernels, true},
#if defined(__x86_64__)
    {&kAvx2Kernels, avx2},
    {&kAvxVnniKernels, avx2 && __builtin_cpu_supports("avxvnni")},
    {&kAvx512Kernels, avx512},
    {&kAvx512VnniKernels, vnni},
    {&kAvx512Bf16Kernels, vnni && __builtin_cpu_supports("avx512bf16")},
#endif
  };
  const auto found = std::find_if(std::begin(all), std::end(all), [&](const Candidate& c) {
    return c.available && std::strcmp(c.kernels->name, name) == 0;
  });
  return found == std::end(all) ? nullptr : found->kernels;
}

const VectorKernels& vector_kernels() {
  static const VectorKernels& chosen = choose();
  return chosen;
}

std::int64_t attention_scratch(std::int64_t width) {
  constexpr std::int64_t kWidestPanel = 32, kMostRows = 12;
  const std::int64_t padded = (width + kWidestPanel - 1) / kWidestPanel * kWidestPanel;
  return kMostRows * kKeyBlock + kQueryBlock * (padded + width + 1);
}

std::int64_t attention_units(std::int64_t keys, std::int64_t width) {
  constexpr std::int64_t kWidestPanel = 32;
  return 3 * (width + kWidestPanel) + keys + kWidestPanel;
}

bool VectorKernels::has_avx512() const { return std::strncmp(name, "avx512", 6) == 0; }

std::int64_t attention_gradient_scratch(std::int64_t keys, std::int64_t width) {
  constexpr std::int64_t kWidestPanel = 32, kMostRows = 24;
  const auto padded = [](std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; };
  const std::int64_t wide = padded(width, kWidestPanel), key_rows = padded(keys, kMostRows);
  // keys and values in rows, keys in columns, gradients of both; a block of queries: queries and
  // gradients in three forms; weights and their gradients in rows, the latter in columns too; a
  // tile of both
  return key_rows * (2 * width + 3 * wide) + kGradientQueries * (3 * width + 3 * wide) +
         3 * kGradientQueries * kGradientKeys + 2 * kMostRows * kWidestPanel;
}

}  // namespace tessera::kernels
