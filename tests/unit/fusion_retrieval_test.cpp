#include "fusion/retrieval.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace tessera::fusion {
namespace {

using Numbers = std::vector<std::int64_t>;

Tensor rows(const std::vector<float>& values, std::int64_t width) {
  return Tensor::from(values, {std::ssize(values) / width, width});
}

TEST(Retrieval, RanksOfImagesAndTexts) {
  Context ctx({.threads = 2});
  // Scores: image 0: .9 .1 .8 .2;  image 1: .3 .5 .4 .6
  const Tensor images = rows({1, 0, 0, 1}, 2),
               texts = rows({.9f, .3f, .1f, .5f, .8f, .4f, .2f, .6f}, 2);
  const auto ranks = retrieval_ranks(ctx, images, texts, Numbers{0, 0, 1, 1});
  EXPECT_EQ(ranks.image_to_text, (Numbers{1, 1}));
  EXPECT_EQ(ranks.text_to_image, (Numbers{1, 2, 2, 1}));
  const auto turned = retrieval_ranks(ctx, images, texts, Numbers{1, 1, 0, 0});
  EXPECT_EQ(turned.image_to_text, (Numbers{2, 2}));
  EXPECT_EQ(turned.text_to_image, (Numbers{2, 1, 1, 2}));
}

TEST(Retrieval, WhoSaysTheSameOfEverythingFindsNothing) {
  Context ctx;
  const Tensor images = rows({1, 1, 1}, 1), texts = rows({1, 1, 1, 1}, 1);
  const auto ranks = retrieval_ranks(ctx, images, texts, Numbers{0, 1, 2, 2});
  EXPECT_EQ(ranks.image_to_text, (Numbers{4, 4, 3}));
  EXPECT_EQ(ranks.text_to_image, (Numbers{3, 3, 3, 3}));
}

TEST(Retrieval, ManyImagesAreTakenAFewAtATime) {
  Context ctx({.threads = 2});
  constexpr std::int64_t kCount = 150;
  Tensor images = Tensor::zeros({kCount, kCount}), texts = Tensor::zeros({kCount, kCount});
  Numbers owners;
  for (std::int64_t i = 0; i < kCount; ++i) {
    images.data()[i * kCount + i] = 1;
    texts.data()[i * kCount + i] = 1;
    texts.data()[i * kCount + (i + 1) % kCount] = i % 3 == 0 ? 2.0f : 0.5f;  // the wrong one first
    owners.push_back(i);
  }
  const auto ranks = retrieval_ranks(ctx, images, texts, owners);
  for (std::int64_t i = 0; i < kCount; ++i)
    EXPECT_EQ(ranks.text_to_image[static_cast<std::size_t>(i)], i % 3 == 0 ? 2 : 1) << i;
  EXPECT_DOUBLE_EQ(recall_at(ranks.text_to_image, 1), 2.0 / 3);
  EXPECT_DOUBLE_EQ(recall_at(ranks.text_to_image, 2), 1);
}

TEST(Retrieval, Medians) {
  EXPECT_EQ(median_rank({}), 0);
  EXPECT_EQ(median_rank({7}), 7);
  EXPECT_EQ(median_rank({9, 1, 4}), 4);
  EXPECT_EQ(median_rank({1, 4, 9, 2}), 3);
  EXPECT_EQ(median_rank({1, 4, 9, 3}), 3) << "3.5, rounded down";
  EXPECT_EQ(recall_at({}, 5), 0);
}

TEST(Retrieval, WrongOwnersAreRefused) {
  Context ctx;
  const Tensor two = rows({1, 2}, 1);
  EXPECT_THROW(retrieval_ranks(ctx, two, two, Numbers{0}), ArgumentError);
  EXPECT_THROW(retrieval_ranks(ctx, two, two, Numbers{0, 2}), ArgumentError);
  EXPECT_THROW(retrieval_ranks(ctx, two, two, Numbers{0, -1}), ArgumentError);
  EXPECT_THROW(retrieval_ranks(ctx, two, two, Numbers{0, 0}), ArgumentError) << "image 1 has none";
}

}  // namespace
}  // namespace tessera::fusion
