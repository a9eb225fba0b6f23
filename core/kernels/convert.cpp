#include "core/kernels/convert.h"

#include <bit>
#include <cstring>

namespace tessera {
namespace {

// Half to float without branches, so that the compiler can vectorise it: the exponent is moved to
// float's place, infinities and NaNs keep all exponent bits, and subnormal halves are multiples of
// 2^-24.
inline float widen_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  const std::uint32_t special = 0u - static_cast<std::uint32_t>(magnitude >= 0x7c00u);
  const std::uint32_t subnormal = 0u - static_cast<std::uint32_t>(magnitude < 0x0400u);
  const std::uint32_t normal = (magnitude << 13) + 0x38000000u + (special & 0x38000000u);
  const float multiple = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  const std::uint32_t small = std::bit_cast<std::uint32_t>(multiple);
  return std::bit_cast<float>(sign | (subnormal & small) | (~subnormal & normal));
}

inline float widen_bfloat16(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

template <class T, class Widen>
void widen(const void* source, float* to, std::int64_t n, Widen one) {
  const auto* from = static_cast<const char*>(source);
  for (std::int64_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, from + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    to[i] = one(value);
  }
}

}  // namespace

float f16_to_f32(std::uint16_t half) { return widen_half(half); }

float bf16_to_f32(std::uint16_t value) { return widen_bfloat16(value); }

std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // below the smallest normal half: let float addition round to
                                  // multiples of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  }
  const std::uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void convert_to_f32(const void* source, DType type, float* to, std::int64_t n) {
  switch (type) {
    case DType::f32:
      std::memcpy(to, source, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case DType::f16:
      return widen<std::uint16_t>(source, to, n, widen_half);
    case DType::bf16:
      return widen<std::uint16_t>(source, to, n, widen_bfloat16);
    case DType::i8:
      return widen<std::int8_t>(source, to, n, [](std::int8_t v) { return static_cast<float>(v); });
    case DType::u8:
      return widen<std::uint8_t>(source, to, n,
                                 [](std::uint8_t v) { return static_cast<float>(v); });
    case DType::i32:
      return widen<std::int32_t>(source, to, n,
                                 [](std::int32_t v) { return static_cast<float>(v); });
    case DType::i64:
      return widen<std::int64_t>(source, to, n,
                                 [](std::int64_t v) { return static_cast<float>(v); });
  }
}

}  // namespace tessera
