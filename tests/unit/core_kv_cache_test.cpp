// Caches that become others, of which they hold a part already; core_byte_attention_test.cpp has
// the rest of those in 8 bits.
#include "core/kv_cache.h"

#include "unit/core_numbers.h"

namespace tessera {
namespace {

using testing::random_tensor;

constexpr std::int64_t kWidth = 24, kHeads = 3;

std::vector<float> rows_of(Context& ctx, KvCache cache, std::int64_t layer) {
  const Tensor none = Tensor::empty({0, kWidth});
  const KeyValues rows = cache.layer(layer).append(none, none).as_rows(ctx);
  std::vector<float> all = rows.k.to_f32().to_vector();
  const std::vector<float> values = rows.v.to_f32().to_vector();
  all.insert(all.end(), values.begin(), values.end());
  return all;
}

void append(KvCache& cache, std::int64_t rows, std::uint64_t seed) {
  for (std::int64_t i = 0; i < cache.layers(); ++i) {
    cache.layer(i).append(random_tensor({rows, kWidth}, seed + i),
                          random_tensor({rows, kWidth}, seed + 10 + i));
  }
}

TEST(KvCache, BecomesAnotherThatItParted) {
  Context ctx({.threads = 1});
  for (const DType type : {DType::f32, DType::bf16, DType::i8}) {
    // Parted within and before a block of 8 bits; the same length and others.
    for (const auto& [same, own, others] :
         {std::tuple{5, 3, 3}, {0, 4, 2}, {255, 1, 3}, {256, 2, 1}, {300, 0, 250}, {7, 300, 2}}) {
      KvCache a(2, {type, type, kHeads});
      append(a, same, 1);
      a.layer(1).set_memory(ctx, random_tensor({4, kWidth}, 5), random_tensor({4, kWidth}, 6));
      KvCache b = a.clone();
      append(a, own, 100);
      append(b, others, 200);
      a.become(b, same);
      ASSERT_EQ(a.length(), same + others);
      EXPECT_TRUE(a.layer(1).memory().same_as(b.layer(1).memory()));
      const auto check = [&](bool alike) {
        for (std::int64_t i = 0; i < 2; ++i)
          EXPECT_EQ(rows_of(ctx, a, i) == rows_of(ctx, b, i), alike) << same << " " << own;
      };
      check(true);
      append(a, 2, 300);  // each goes on by itself
      append(b, 2, 400);
      check(false);
      a.truncate(same + others);
      b.truncate(same + others);
      check(true);
    }
  }
}

TEST(KvCache, BecomesAnotherFromNothing) {
  Context ctx({.threads = 1});
  for (const DType type : {DType::f32, DType::bf16, DType::i8}) {
    KvCache a, b(2, {type, type, kHeads});
    append(b, 70, 1);
    a.become(b, 0);
    ASSERT_EQ(a.layers(), 2);
    EXPECT_EQ(rows_of(ctx, a, 1), rows_of(ctx, b, 1));
    a.become(KvCache(2, {type, type, kHeads}), 0);
    EXPECT_EQ(a.length(), 0);
  }
}

}  // namespace
}  // namespace tessera
