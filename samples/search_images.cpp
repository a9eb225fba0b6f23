// Arguments: tests/data/families/clip-published "a red car" docs/media/astronaut.jpg
// tests/data/images/png_rgb8.png Ranks images by how well a text says what they show.
#include <algorithm>
#include <cstdio>

#include "core/error.h"
#include "fusion/dual_encoder.h"

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 4) {
    std::fprintf(stderr, "usage: search_images CHECKPOINT TEXT IMAGE...\n");
    return 2;
  }
  try {
    const fusion::DualEncoder encoder(fusion::Model::open(argv[1]));
    Context ctx;
    std::vector<vision::Image> images;
    for (int i = 3; i < argc; ++i) images.push_back(vision::load_image(argv[i]));
    const Tensor photos = encoder.encode_images(ctx, images);  // [N, P], to be kept and searched

    const std::vector<std::string> query = {argv[2]};
    const Tensor cosines =
        encoder.cosines(ctx, photos, encoder.encode_texts(ctx, query));  // [N, 1]

    std::vector<std::pair<float, const char*>> ranked;
    for (std::size_t i = 0; i < images.size(); ++i)
      ranked.emplace_back(cosines.data()[i], argv[3 + i]);
    std::sort(ranked.rbegin(), ranked.rend());
    for (const auto& [cosine, file] : ranked)
      std::printf("%7.4f  %s\n", static_cast<double>(cosine), file);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
