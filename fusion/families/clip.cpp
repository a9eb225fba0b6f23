// HF's CLIPModel (openai/clip-vit-base-patch32 is one): images and texts in one space.
#include "fusion/dual_encoder.h"

namespace tessera::fusion {

ModelFamily clip_family() { return {{"clip"}, load_dual}; }

}  // namespace tessera::fusion
