// embed: images and texts as vectors of one space, and how close they are.
#include "cli/inputs.h"
#include "cli/options.h"
#include "core/error.h"
#include "fusion/dual_encoder.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  std::vector<std::string> files, texts;
  bool similarity = false;
};

void print_embedding(const std::string& input, const Tensor& row) {
  print_json({{"input", input}, {"embedding", row.to_vector()}});
}

/// Of one image, to all texts.
void print_similarities(const Options& o, const std::string& file, const Tensor& cosines,
                        const Tensor& probabilities) {
  Json list = Json::array();
  for (std::size_t t = 0; t < o.texts.size(); ++t) {
    const float cosine = cosines.data()[t], share = probabilities.data()[t];
    if (o.common.json) {
      list.push_back({{"text", o.texts[t]}, {"cosine", cosine}, {"probability", share}});
      continue;
    }
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, "%.4f\t%.4f", static_cast<double>(cosine),
                  static_cast<double>(share));
    print_line(concat(file, "\t", numbers, "\t", o.texts[t]));
  }
  if (o.common.json) print_json({{"file", file}, {"texts", list}});
}

int run(const Options& o) {
  if (o.files.empty() && o.texts.empty())
    throw ArgumentError("give images, or texts with --text, to be embedded");
  if (o.similarity && (o.files.empty() || o.texts.empty()))
    throw ArgumentError("--similarity compares images with texts: give both");
  const fusion::DualEncoder encoder(o.common.open());
  Context ctx(o.common.context());
  const InterruptGuard guard;
  const Tensor texts = encoder.encode_texts(ctx, o.texts);
  if (o.similarity && !o.common.json) print_line("file\tcosine\tprobability\ttext");
  int code = kOk;
  if (!o.files.empty()) {
    code = for_each_file(expand_folders(o.files), o.common.json, [&](const std::string& file) {
      const vision::Image image = load_image(file);
      const Tensor row = encoder.encode_images(ctx, std::span(&image, 1));
      if (!o.similarity) return print_embedding(file, row);
      const Tensor cosines = encoder.cosines(ctx, row, texts);
      print_similarities(o, file, cosines, encoder.probabilities(ctx, cosines));
    });
  }
  if (o.similarity) return code;
  for (std::size_t t = 0; t < o.texts.size(); ++t)
    print_embedding(o.texts[t], texts[static_cast<std::int64_t>(t)]);
  return code;
}

}  // namespace

Run add_embed(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command(
      "embed", "Print images and texts as vectors of one space, or how close they are");
  command.add_option("FILE", o->files, "Images, or folders of images; - is standard input")
      .type_name("");
  command.add_option("--text", o->texts, "A text (once for each)").one_each();
  command.add_flag("--similarity", o->similarity,
                   "Print the cosine of each image and text, and how likely each text is the "
                   "image's, instead of vectors");
  o->common.add_to(command, true);
  command.footer(
      "Examples:\n  tessera embed --model clip-vit-base-patch32 photos/ > photos.jsonl\n"
      "  tessera embed --model clip-vit-base-patch32 --similarity --text \"a photo of a cat\" \\\n"
      "    --text \"a photo of a dog\" photo.jpg");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
