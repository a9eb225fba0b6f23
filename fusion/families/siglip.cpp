// HF's SiglipModel (google/siglip-base-patch16-224 is one): as CLIP, but without projections, and
// every pair is judged for itself: the logits have a bias.
#include "fusion/dual_encoder.h"

namespace tessera::fusion {

ModelFamily siglip_family() { return {{"siglip"}, load_dual}; }

}  // namespace tessera::fusion
