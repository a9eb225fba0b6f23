#include "core/kernels/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "core/tensor.h"

namespace tessera {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A half by its definition (IEEE 754 binary16): the oracle.
double value_of_half(std::uint16_t half) {
  const int exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
  const double sign = half & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * kInfinity;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

std::vector<std::uint16_t> all_16_bit_patterns() {
  std::vector<std::uint16_t> all(1 << 16);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  return all;
}

TEST(Convert, WidensEveryHalfExactly) {
  for (const std::uint16_t half : all_16_bit_patterns()) {
    const float expected = static_cast<float>(value_of_half(half)), actual = f16_to_f32(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << half;
    } else {
      ASSERT_TRUE(same_bits(actual, expected)) << half << ": " << actual << " " << expected;
    }
  }
}

TEST(Convert, WidensAllHalvesInARowAsOneByOne) {
  const std::vector<std::uint16_t> halves = all_16_bit_patterns();
  std::vector<float> wide(halves.size());
  convert_to_f32(halves.data(), DType::f16, wide.data(), static_cast<std::int64_t>(wide.size()));
  for (std::size_t i = 0; i < wide.size(); ++i)
    ASSERT_TRUE(same_bits(wide[i], f16_to_f32(halves[i]))) << i;
}

TEST(Convert, WidensEveryBfloat16Exactly) {
  for (const std::uint16_t value : all_16_bit_patterns())
    ASSERT_EQ(std::bit_cast<std::uint32_t>(bf16_to_f32(value)), std::uint32_t{value} << 16);
}

TEST(Convert, EveryHalfComesBackAsItself) {
  for (const std::uint16_t half : all_16_bit_patterns()) {
    const std::uint16_t back = f32_to_f16(f16_to_f32(half));
    if (std::isnan(value_of_half(half))) {
      ASSERT_TRUE(std::isnan(f16_to_f32(back))) << half;
    } else {
      ASSERT_EQ(back, half);
    }
  }
}

TEST(Convert, EveryBfloat16ComesBackAsItself) {
  for (const std::uint16_t value : all_16_bit_patterns()) {
    const float wide = bf16_to_f32(value);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(wide)))) << value;
    } else {
      ASSERT_EQ(f32_to_bf16(wide), value);
    }
  }
}

/// Between each half and the next: the middle goes to the even one, its neighbours to the nearer.
TEST(Convert, NarrowsToHalfByRoundingToNearestEven) {
  for (std::uint16_t low = 0; low < 0x7bff; ++low) {
    const auto high = static_cast<std::uint16_t>(low + 1);
    const auto middle = static_cast<float>((value_of_half(low) + value_of_half(high)) / 2);
    const std::uint16_t even = low % 2 == 0 ? low : high;
    ASSERT_EQ(f32_to_f16(middle), even) << low;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, kInfinity)), high);
    ASSERT_EQ(f32_to_f16(-middle), even | 0x8000);
  }
}

TEST(Convert, NarrowsToHalfAtTheEdges) {
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);  // the middle between 65504 and what would be 65536
  EXPECT_EQ(f32_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-kInfinity), 0xfc00);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);  // the middle between 0 and the smallest half
  EXPECT_EQ(f32_to_f16(0x1.000002p-25f), 0x0001);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0x0000);
  EXPECT_EQ(f32_to_f16(-0.0f), 0x8000);
}

TEST(Convert, NarrowsToBfloat16ByRoundingToNearestEven) {
  for (std::uint32_t low = 0; low < 0x7f80; ++low) {  // the last one rounds to infinity
    const std::uint32_t even = low % 2 == 0 ? low : low + 1;
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(low << 16 | 0x8000u)), even);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(low << 16 | 0x7fffu)), low);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(low << 16 | 0x8001u)), low + 1);
  }
  const auto quiet = std::bit_cast<float>(0x7f800001u);  // a NaN whose bits would be cut off
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(quiet))));
  EXPECT_EQ(f32_to_bf16(-kInfinity), 0xff80);
}

/// convert_to_f32 against the single conversions, at lengths around the vector widths and from
/// addresses that are not aligned; what lies behind the end stays untouched.
template <class T, class One>
void check_rows(DType type, One one) {
  for (const std::int64_t n : {0, 1, 2, 3, 5, 7, 8, 9, 15, 17, 31, 33, 63, 65, 127, 1009}) {
    std::vector<T> numbers(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = static_cast<T>(i * 40503u * 2654435761u >> 7);
    std::vector<char> bytes(numbers.size() * sizeof(T) + 1);
    if (n > 0) std::memcpy(bytes.data() + 1, numbers.data(), numbers.size() * sizeof(T));
    std::vector<float> wide(numbers.size() + 1, 12345.0f);
    convert_to_f32(bytes.data() + 1, type, wide.data(), n);
    for (std::size_t i = 0; i < numbers.size(); ++i)
      ASSERT_TRUE(same_bits(wide[i], one(numbers[i]))) << name_of(type) << " " << n << " " << i;
    ASSERT_EQ(wide.back(), 12345.0f) << name_of(type) << " " << n;
  }
}

TEST(Convert, ConvertsRowsOfEveryType) {
  const auto plain = [](auto value) { return static_cast<float>(value); };
  check_rows<std::uint16_t>(DType::f16, f16_to_f32);
  check_rows<std::uint16_t>(DType::bf16, bf16_to_f32);
  check_rows<std::int8_t>(DType::i8, plain);
  check_rows<std::uint8_t>(DType::u8, plain);
  check_rows<std::int32_t>(DType::i32, plain);
  check_rows<std::int64_t>(DType::i64, plain);
  check_rows<std::uint32_t>(DType::f32, [](std::uint32_t v) { return std::bit_cast<float>(v); });
}

}  // namespace
}  // namespace tessera
