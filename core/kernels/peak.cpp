// Each loop is compiled for its own instruction set by a function attribute and runs only where
// that is there.
#include "core/kernels/peak.h"

#include <cstring>

#include "core/kernels/vector.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera::kernels {
namespace {

constexpr int kChains = 12;  // independent sums: latency 4 or 5, two multiplications a cycle

double scalar_f32(std::int64_t rounds) {
  float sums[kChains] = {};
  float x = 1.0f, y = 0.5f;
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (float& sum : sums) sum += x * y;
    asm volatile("" : "+m"(sums), "+m"(x), "+m"(y));
  }
  return 2.0 * kChains * static_cast<double>(rounds);
}

#if defined(__x86_64__)
// A round is one multiply-add of vectors on each chain. Chains are variables by name, so that they
// stay in registers.
#define TESSERA_CHAINS(DO, step) \
  DO(s0, step)                   \
  DO(s1, step)                   \
  DO(s2, step)                   \
  DO(s3, step)                   \
  DO(s4, step)                   \
  DO(s5, step) DO(s6, step) DO(s7, step) DO(s8, step) DO(s9, step) DO(s10, step) DO(s11, step)
#define TESSERA_START(s, Vector) Vector s = {};
#define TESSERA_STEP(s, step) \
  s = step(s);                \
  asm volatile("" : "+x"(s));
#define TESSERA_PEAK_LOOP(name, isa, Vector, per_step, step)       \
  __attribute__((target(isa))) double name(std::int64_t rounds) {  \
    TESSERA_CHAINS(TESSERA_START, Vector)                          \
    for (std::int64_t i = 0; i < rounds; ++i) {                    \
      TESSERA_CHAINS(TESSERA_STEP, step)                           \
    }                                                              \
    return 2.0 * (per_step)*kChains * static_cast<double>(rounds); \
  }

#define TESSERA_AVX2_F32(s) _mm256_fmadd_ps(s, s, s)
#define TESSERA_AVX2_INT8(s) _mm256_add_epi32(s, _mm256_madd_epi16(s, s))
#define TESSERA_AVX_VNNI(s) _mm256_dpbusd_avx_epi32(s, s, s)
#define TESSERA_AVX512_F32(s) _mm512_fmadd_ps(s, s, s)
#define TESSERA_AVX512_INT8(s) _mm512_add_epi32(s, _mm512_madd_epi16(s, s))
#define TESSERA_VNNI(s) _mm512_dpbusd_epi32(s, s, s)
#define TESSERA_BF16(s) _mm512_dpbf16_ps(s, (__m512bh)s, (__m512bh)s)

TESSERA_PEAK_LOOP(avx2_f32, "avx2,fma", __m256, 8, TESSERA_AVX2_F32)
TESSERA_PEAK_LOOP(avx2_int8, "avx2,fma", __m256i, 16, TESSERA_AVX2_INT8)
TESSERA_PEAK_LOOP(avx_vnni_int8, "avx2,avxvnni", __m256i, 32, TESSERA_AVX_VNNI)
TESSERA_PEAK_LOOP(avx512_f32, "avx512f,avx512bw", __m512, 16, TESSERA_AVX512_F32)
TESSERA_PEAK_LOOP(avx512_int8, "avx512f,avx512bw", __m512i, 32, TESSERA_AVX512_INT8)
TESSERA_PEAK_LOOP(vnni_int8, "avx512f,avx512bw,avx512vnni", __m512i, 64, TESSERA_VNNI)
TESSERA_PEAK_LOOP(avx512_bf16, "avx512f,avx512bw,avx512bf16", __m512, 32, TESSERA_BF16)
#endif

}  // namespace

std::vector<PeakLoop> peak_loops() {
#if defined(__x86_64__)
  const VectorKernels& kernels = vector_kernels();
  if (kernels.has_avx512()) {
    std::vector<PeakLoop> loops{{"f32", "vfmadd, AVX-512", avx512_f32}};
    if (kernels.half.native) loops.push_back({"bf16", "vdpbf16, AVX-512", avx512_bf16});
    if (kernels.integer.depth == 4) {
      loops.push_back({"int8", "vpdpbusd, AVX-512", vnni_int8});
    } else {
      loops.push_back({"int8", "vpmaddwd + vpaddd, AVX-512", avx512_int8});
    }
    return loops;
  }
  if (std::strncmp(kernels.name, "avx", 3) == 0) {
    const bool bytes = kernels.integer.depth == 4;
    return {{"f32", "vfmadd, AVX2", avx2_f32},
            bytes ? PeakLoop{"int8", "vpdpbusd, AVX2", avx_vnni_int8}
                  : PeakLoop{"int8", "vpmaddwd + vpaddd, AVX2", avx2_int8}};
  }
#endif
  return {{"f32", "scalar", scalar_f32}};
}

std::uint64_t read_through(const std::uint64_t* data, std::int64_t bytes) {
  constexpr std::int64_t kSums = 16;
  std::uint64_t sums[kSums] = {};
  const std::int64_t count = bytes / 8 / kSums * kSums;
  for (std::int64_t i = 0; i < count; i += kSums) {
#pragma GCC unroll 16
    for (std::int64_t j = 0; j < kSums; ++j) sums[j] ^= data[i + j];
  }
  std::uint64_t all = 0;
  for (const std::uint64_t sum : sums) all ^= sum;
  return all;
}

}  // namespace tessera::kernels
