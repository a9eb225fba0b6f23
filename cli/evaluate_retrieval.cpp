// evaluate with a dual encoder: images find texts, and texts images.
#include "cli/evaluate_retrieval.h"

#include <algorithm>
#include <optional>

#include "cli/options.h"
#include "core/error.h"
#include "core/output_file.h"
#include "fusion/dual_encoder.h"
#include "fusion/retrieval.h"

namespace tessera::cli {
namespace {

using Ranks = std::vector<std::int64_t>;

/// The examples whose images could be read, and the vectors of these and of all their texts.
struct Vectors {
  std::vector<fusion::Example> examples;
  std::vector<std::int64_t> owners;  // of the texts
  Tensor images, texts;
  std::int64_t failed = 0;
  bool interrupted = false;
};

Vectors encode(Context& ctx, const fusion::DualEncoder& encoder, fusion::Examples all) {
  Vectors out;
  std::vector<Tensor> images;
  std::vector<std::string> texts;
  Progress progress("evaluate", "images", all.list.size() > 1);
  for (std::size_t i = 0; i < all.list.size() && !out.interrupted; ++i) {
    progress.show(static_cast<double>(i), static_cast<double>(all.list.size()));
    fusion::Example& example = all.list[i];
    const std::string problem = problem_with(all, example, [&] {
      const vision::Image image = vision::load_image(example.image);
      images.push_back(encoder.encode_images(ctx, std::span(&image, 1)));
    });
    if (!problem.empty()) {
      progress.clear();
      report(problem);
      ++out.failed;
      continue;
    }
    texts.insert(texts.end(), example.texts.begin(), example.texts.end());
    out.owners.insert(out.owners.end(), example.texts.size(), std::ssize(out.examples));
    out.examples.push_back(std::move(example));
    out.interrupted = InterruptGuard::interrupted();
  }
  if (images.empty()) return out;
  out.images = join_rows(ctx, images);
  out.texts = encoder.encode_texts(ctx, texts);
  return out;
}

void write_items(OutputFile& out, const Vectors& v, const fusion::RetrievalRanks& ranks) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < v.examples.size(); ++i) {
    const fusion::Example& e = v.examples[i];
    Json places = Json::array();
    for (std::size_t t = 0; t < e.texts.size(); ++t) places.push_back(ranks.text_to_image[at++]);
    const Json line = {{"line", e.line},
                       {"image", e.image.string()},
                       {"text", e.texts},
                       {"rank_of_text", ranks.image_to_text[i]},
                       {"ranks_of_image", places}};
    out.write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  out.publish();
}

constexpr std::int64_t kPlaces[] = {1, 5, 10};

Json to_json(const Ranks& ranks) {
  Json out;
  for (const std::int64_t k : kPlaces) out[concat("recall@", k)] = fusion::recall_at(ranks, k);
  out["median_rank"] = fusion::median_rank(ranks);
  return out;
}

void print_direction(const char* name, const Ranks& ranks) {
  std::string text;
  char number[32];
  for (const std::int64_t k : kPlaces) {
    std::snprintf(number, sizeof number, "%8.2f %%", 100 * fusion::recall_at(ranks, k));
    text += number;
  }
  std::snprintf(number, sizeof number, "%13lld",
                static_cast<long long>(fusion::median_rank(ranks)));
  print_row(name, text + number, 15);
}

void print_scores(const RetrievalScoring& o, const Vectors& v,
                  const fusion::RetrievalRanks& ranks) {
  if (o.json) {
    print_json({{"file", o.file},
                {"items", v.examples.size()},
                {"texts", v.owners.size()},
                {"failed", v.failed},
                {"scores",
                 {{"image_to_text", to_json(ranks.image_to_text)},
                  {"text_to_image", to_json(ranks.text_to_image)}}}});
  } else {
    print_row("images", std::to_string(v.examples.size()), 15);
    print_row("texts", std::to_string(v.owners.size()), 15);
    if (v.failed > 0) print_row("failed", std::to_string(v.failed), 15);
    print_line("                 recall@1  recall@5 recall@10  median rank");
    print_direction("image to text", ranks.image_to_text);
    print_direction("text to image", ranks.text_to_image);
  }
}

}  // namespace

int evaluate_retrieval(const RetrievalScoring& o, const std::shared_ptr<const fusion::Model>& model,
                       fusion::Examples examples) {
  const fusion::DualEncoder encoder(model);
  std::optional<OutputFile> output;  // now, so that a wrong name is not said hours later
  if (!o.output.empty()) output.emplace(o.output);
  Context ctx(o.context);
  const InterruptGuard guard;
  const Vectors v = encode(ctx, encoder, std::move(examples));
  if (v.examples.empty()) {
    report(concat(o.file, ": no example was answered"));
    return v.interrupted ? kInterrupted : kFailed;
  }
  const fusion::RetrievalRanks ranks = fusion::retrieval_ranks(ctx, v.images, v.texts, v.owners);
  if (output) write_items(*output, v, ranks);
  if (v.interrupted)
    report(concat("interrupted; scores of the first ", v.examples.size(), " images:"));
  print_scores(o, v, ranks);
  return v.interrupted ? kInterrupted : v.failed > 0 ? kFailed : kOk;
}

}  // namespace tessera::cli
