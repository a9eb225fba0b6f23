#include "core/tensor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <thread>

#include "core/context.h"
#include "core/error.h"

namespace tessera {
namespace {

using Floats = std::vector<float>;

/// 0, 1, 2, ... in this shape.
Tensor counting(const Shape& shape) {
  Floats values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::from(values, shape);
}

TEST(Shape, CountsFromBothEnds) {
  const Shape s{2, 3, 5};
  EXPECT_EQ(s.rank(), 3);
  EXPECT_EQ(s.numel(), 30);
  EXPECT_EQ(s[0], 2);
  EXPECT_EQ(s[-1], 5);
  EXPECT_EQ(s[-3], 2);
  EXPECT_EQ(s.str(), "[2, 3, 5]");
  EXPECT_EQ(Shape().numel(), 1);
  EXPECT_EQ(Shape().str(), "[]");
  EXPECT_EQ((Shape{4, 0}).numel(), 0);
}

TEST(Shape, ComparesRankAndLengths) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 0}));
  EXPECT_NE((Shape{2}), (Shape{2, 1}));
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), ShapeError);
}

TEST(Tensor, IsEmptyByDefault) {
  const Tensor t;
  EXPECT_FALSE(t);
  EXPECT_TRUE(Tensor::empty({0}));
  EXPECT_EQ(Tensor::from({}, {0, 4}).to_vector(), Floats());
}

TEST(Tensor, IsAlignedAndContiguous) {
  for (const std::int64_t n : {1, 3, 17, 1000}) {
    const Tensor t = Tensor::empty({n, 3}, DType::i8);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.raw()) % 64, 0u);
    EXPECT_EQ(t.nbytes(), static_cast<std::size_t>(3 * n));
    EXPECT_EQ(t.stride(0), 3);
    EXPECT_EQ(t.stride(1), 1);
    EXPECT_TRUE(t.is_contiguous());
  }
  EXPECT_EQ(Tensor::zeros({17}).to_vector(), Floats(17));
}

TEST(Tensor, RefusesImpossibleShapes) {
  EXPECT_THROW(Tensor::empty({-1}), ShapeError);
  EXPECT_THROW(Tensor::empty({1ll << 40, 1ll << 40}), ShapeError);
  EXPECT_THROW(Tensor::empty({INT64_MAX}), ShapeError);
}

TEST(Tensor, CopiesShareAndClonesDoNot) {
  Tensor a = counting({3});
  EXPECT_TRUE(a.unique());
  Tensor b = a;
  EXPECT_FALSE(a.unique());
  const Tensor c = a.clone();
  b.data()[1] = 50;
  EXPECT_EQ(a.to_vector(), (Floats{0, 50, 2}));
  EXPECT_EQ(c.to_vector(), (Floats{0, 1, 2}));
  b = Tensor();
  EXPECT_TRUE(a.unique());
}

TEST(Tensor, SlicesRows) {
  const Tensor t = counting({4, 3});
  const Tensor s = t.slice(1, 3);
  EXPECT_EQ(s.shape(), (Shape{2, 3}));
  EXPECT_EQ(s.to_vector(), (Floats{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(s.data(), t.data() + 3);
  EXPECT_TRUE(s.is_contiguous());
  EXPECT_EQ(t.slice(2, 2).numel(), 0);
  EXPECT_EQ(t.slice(4, 4).to_vector(), Floats());
  EXPECT_EQ(s.slice(1, 2).to_vector(), (Floats{6, 7, 8}));
}

TEST(Tensor, IndexesDropADimension) {
  const Tensor t = counting({2, 3, 2});
  EXPECT_EQ(t[1].shape(), (Shape{3, 2}));
  EXPECT_EQ(t[1][2].to_vector(), (Floats{10, 11}));
  EXPECT_EQ(t[1][2][1].rank(), 0);
  EXPECT_EQ(t[1][2][1].to_vector(), Floats{11});
}

TEST(Tensor, ColumnsAreStrided) {
  const Tensor t = counting({3, 5});
  const Tensor c = t.columns(1, 4);
  EXPECT_EQ(c.shape(), (Shape{3, 3}));
  EXPECT_EQ(c.stride(0), 5);
  EXPECT_FALSE(c.is_contiguous());
  EXPECT_EQ(c.to_vector(), (Floats{1, 2, 3, 6, 7, 8, 11, 12, 13}));
  EXPECT_EQ(c[1].to_vector(), (Floats{6, 7, 8}));
  EXPECT_EQ(c.slice(1, 3).to_vector(), (Floats{6, 7, 8, 11, 12, 13}));
  EXPECT_EQ(c.columns(2, 3).to_vector(), (Floats{3, 8, 13}));
  EXPECT_TRUE(t.slice(0, 1).columns(1, 3).is_contiguous()) << "one row always is";
  EXPECT_EQ(t.columns(2, 2).to_vector(), Floats());
}

TEST(Tensor, WindowsMayOverlap) {
  const Tensor t = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5, 6}, {7});
  const Tensor w = t.windows(3, 3, 2);
  EXPECT_EQ(w.shape(), (Shape{3, 3}));
  EXPECT_EQ(w.to_vector(), (std::vector<float>{0, 1, 2, 2, 3, 4, 4, 5, 6}));
  EXPECT_EQ(w.raw(), t.raw());
}

TEST(Tensor, ClonesStridedTensorsOfAnyRank) {
  const Tensor t = counting({2, 3, 4});
  const Tensor c = t.columns(1, 3).clone();
  EXPECT_TRUE(c.is_contiguous());
  EXPECT_EQ(c.shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(c.to_vector(), (Floats{1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22}));
  const Tensor one = t.columns(3, 4).clone();
  EXPECT_EQ(one.to_vector(), (Floats{3, 7, 11, 15, 19, 23}));
  EXPECT_EQ(counting({}).clone().to_vector(), Floats{0});
}

TEST(Tensor, ReshapesWithoutCopying) {
  const Tensor t = counting({2, 6});
  const Tensor r = t.reshape({3, 4});
  EXPECT_EQ(r.data(), t.data());
  EXPECT_EQ(r.stride(0), 4);
  EXPECT_EQ(r[2].to_vector(), (Floats{8, 9, 10, 11}));
}

TEST(Tensor, ToF32KeepsFloatsAndConvertsTheRest) {
  const Tensor t = counting({2, 3});
  EXPECT_EQ(t.to_f32().data(), t.data());
  EXPECT_NE(t.columns(0, 2).to_f32().data(), t.data());
  Tensor ints = Tensor::empty({2, 3}, DType::i32);
  for (int i = 0; i < 6; ++i) ints.data<std::int32_t>()[i] = i - 3;
  EXPECT_EQ(ints.columns(1, 3).to_vector(), (Floats{-2, -1, 1, 2}));
}

TEST(Tensor, ViewsKeepTheirOwnerAlive) {
  auto owner = std::make_shared<Floats>(Floats{1, 2, 3, 4});
  const std::weak_ptr<Floats> watched = owner;
  Tensor t = Tensor::view(owner->data(), DType::f32, {2, 2}, owner);
  owner.reset();
  Tensor row = t[1];
  t = Tensor();
  ASSERT_FALSE(watched.expired());
  EXPECT_EQ(row.to_vector(), (Floats{3, 4}));
  row = Tensor();
  EXPECT_TRUE(watched.expired());
}

#ifdef TESSERA_EXACT_BUFFERS
#define SKIP_WITHOUT_REUSE() GTEST_SKIP() << "this build gives every buffer memory of its own"
#else
#define SKIP_WITHOUT_REUSE() static_cast<void>(0)
#endif

TEST(BufferPool, HandsABlockOutAgain) {
  SKIP_WITHOUT_REUSE();
  Context ctx({.threads = 1, .log = {}});
  const void* first = nullptr;
  {
    const Tensor t = ctx.empty({1000});
    first = t.raw();
    EXPECT_NE(ctx.empty({1000}).raw(), first) << "still in use";
  }
  const Tensor again = ctx.empty({900});
  const Tensor second = ctx.empty({1000});
  EXPECT_TRUE(again.raw() == first || second.raw() == first);
  EXPECT_NE(again.raw(), second.raw());
}

TEST(BufferPool, DoesNotWasteALargeBlockOnASmallTensor) {
  SKIP_WITHOUT_REUSE();
  Context ctx({.threads = 1, .log = {}});
  const void* large = nullptr;
  {
    const Tensor t = ctx.empty({1 << 20});
    large = t.raw();
  }
  EXPECT_NE(ctx.empty({10}).raw(), large);
  EXPECT_EQ(ctx.empty({1 << 20}).raw(), large);
}

TEST(BufferPool, TensorsOutliveTheirContext) {
  Tensor t;
  {
    Context ctx({.threads = 1, .log = {}});
    t = ctx.empty({5000});
    std::memset(t.raw(), 0, t.nbytes());
    ctx.trim();
  }
  EXPECT_EQ(t.to_vector(), Floats(5000));
}

TEST(BufferPool, GivesEveryTaskItsOwnMemory) {
  Context ctx({.threads = 4, .log = {}});
  std::atomic<int> wrong{0};
  ctx.parallel_for(2000, [&](std::int64_t i) {
    Tensor t = ctx.empty({64 + i % 64});
    for (std::int64_t j = 0; j < t.numel(); ++j) t.data()[j] = static_cast<float>(i);
    std::this_thread::yield();
    for (std::int64_t j = 0; j < t.numel(); ++j) wrong += t.data()[j] != static_cast<float>(i);
  });
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace tessera
