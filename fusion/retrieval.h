#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"

// How well images and texts find each other, by the protocol of Karpathy and Fei-Fei (2015) for
// images with several texts each.
namespace tessera::fusion {

/// The place of the right answer among all candidates, from 1 on. One that scores the same counts
/// as if it came before the right one: who says the same of everything finds nothing.
struct RetrievalRanks {
  std::vector<std::int64_t> image_to_text;  ///< of each image: the best place of one of its texts
  std::vector<std::int64_t> text_to_image;  ///< of each text: the place of its image
};

/// images [I, P] and texts [T, P], scored by their products; text t belongs to image owners[t].
/// Throws ArgumentError for an owner outside [0, I) and for an image without a text.
RetrievalRanks retrieval_ranks(Context& ctx, const Tensor& images, const Tensor& texts,
                               std::span<const std::int64_t> owners);

/// The share of ranks that are at most k.
double recall_at(std::span<const std::int64_t> ranks, std::int64_t k);
/// The middle rank; of two in the middle, their mean rounded down.
std::int64_t median_rank(std::vector<std::int64_t> ranks);

}  // namespace tessera::fusion
