// HF's VisionTextDualEncoderModel: any image tower with a pooling head beside CLIP's text tower.
// What `tessera train retrieval` makes of a ViT.
#include "fusion/dual_encoder.h"

namespace tessera::fusion {

ModelFamily vision_text_dual_encoder_family() { return {{"vision-text-dual-encoder"}, load_dual}; }

}  // namespace tessera::fusion
