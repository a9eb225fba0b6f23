#include <algorithm>
#include <cmath>
#include <map>

#include "cli/train_retrieval.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/text_file.h"
#include "text/text_tower.h"
#include "text/tokenizer.h"
#include "train/parameters.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

/// First numbers of the loss.
struct FirstLogits {
  double scale;
  std::optional<double> bias;
};

FirstLogits first_logits(const RetrievalOptions& o) {
  if (o.pair_loss == "sigmoid") return {std::log(10.0), -10.0};  // Zhai et al. 2023
  return {2.6592, std::nullopt};                                 // HF's and CLIP's: log(1 / 0.07)
}

Json read_json(const fs::path& file) {
  Config::read(file);  // which says in the usual words what is wrong with it
  return Json::parse(read_text_file(file));
}

/// The image tower of a checkpoint: its config, and where its tensors are.
struct ImageTower {
  Json config;
  std::string type, prefix;
};

ImageTower image_tower_of(const fs::path& directory, const Weights& weights) {
  ImageTower tower{read_json(directory / "config.json"), "", ""};
  tower.type = tower.config.value("model_type", "");
  if (tower.type == "clip" || tower.type == "siglip") {
    tower.config = tower.config.value("vision_config", Json::object());
    tower.type += "_vision_model";
  }
  static const std::vector<std::string> kKnown = {"vit", "deit", "clip_vision_model",
                                                  "siglip_vision_model"};
  if (!std::ranges::count(kKnown, tower.type)) {
    throw UnsupportedError(concat(directory.string(), ": the image tower is of type \"", tower.type,
                                  "\"; give a vit, deit, clip or siglip checkpoint"));
  }
  for (const char* own : {"vit", "deit", "vision_model"})
    if (!weights.at(own).names().empty()) tower.prefix = own;
  tower.config["model_type"] = tower.type;
  for (const char* key : {"id2label", "label2id", "num_labels", "architectures", "torch_dtype",
                          "dtype", "transformers_version"})
    tower.config.erase(key);
  return tower;
}

/// Its parameters under the names of the whole, and a pooler where a ViT was published without.
train::Parameters image_parameters(const ImageTower& tower, const Weights& weights,
                                   std::uint64_t seed) {
  train::Parameters out = train::copy_of(tower.prefix.empty() ? weights : weights.at(tower.prefix));
  std::erase_if(out, [](const NamedTensor& p) {
    return p.name.find("classifier") != p.name.npos || p.name.ends_with("mask_token");
  });
  for (NamedTensor& p : out) p.name = "vision_model." + p.name;
  const std::string pooler = "vision_model.pooler.dense.";
  const auto is_pooler = [&](const NamedTensor& p) { return p.name.starts_with(pooler); };
  if ((tower.type == "vit" || tower.type == "deit") && std::ranges::none_of(out, is_pooler)) {
    const std::int64_t width = tower.config.value("hidden_size", std::int64_t{768});
    const double deviation = 1 / std::sqrt(static_cast<double>(width));
    for (const auto& [name, shape] :
         {std::pair(pooler + "weight", Shape{width, width}), {pooler + "bias", Shape{width}}})
      out.push_back({name, train::initial_value(name, shape, deviation, seed)});
  }
  return out;
}

/// Puts the tokenizer's files into the folder. One that does not end texts with its end token is
/// given that rule. Returns the end token.
std::int32_t copy_tokenizer(const fs::path& source, const fs::path& folder) {
  const fs::path from = fs::is_directory(source) ? source : source.parent_path();
  const fs::path file = fs::is_directory(source) ? source / "tokenizer.json" : source;
  if (!fs::exists(file)) throw IoError(concat(source.string(), ": has no tokenizer.json"));
  const text::Tokenizer tokenizer = text::Tokenizer::open(from);
  const auto end = tokenizer.special("eos_token");
  if (!end) {
    throw UnsupportedError(concat(
        source.string(), ": its tokenizer_config.json names no eos_token; a text needs one"));
  }
  if (*end == 2) {
    throw UnsupportedError(concat(source.string(),
                                  ": its end token has the id 2, for which transformers' CLIP "
                                  "looks elsewhere; take another tokenizer"));
  }
  std::string json = read_text_file(file);
  const std::vector<std::int32_t> ids = tokenizer.encode("a", {.add_special_tokens = true});
  if (ids.empty() || ids.back() != *end) {
    const std::string token = tokenizer.token(*end);
    const Json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
               special = {{"SpecialToken", {{"id", token}, {"type_id", 0}}}},
               second = {{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
    Json document = Json::parse(json);
    document["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single", Json::array({sequence, special})},
        {"pair", Json::array({sequence, special, second, special})},
        {"special_tokens",
         {{token,
           {{"id", token}, {"ids", Json::array({*end})}, {"tokens", Json::array({token})}}}}}};
    json = document.dump();
  }
  write_file(folder / "tokenizer.json", json);
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
    if (fs::exists(from / name)) write_file(folder / name, read_text_file(from / name));
  return *end;
}

/// CLIP's text tower, in HF's keys.
Json text_config(const RetrievalOptions& o, std::int64_t vocabulary, std::int32_t end) {
  return {{"model_type", "clip_text_model"},
          {"vocab_size", vocabulary},
          {"hidden_size", o.text_width},
          {"num_hidden_layers", o.text_layers},
          {"num_attention_heads", o.text_heads},
          {"intermediate_size", 4 * o.text_width},
          {"max_position_embeddings", o.text_context},
          {"hidden_act", "gelu"},
          {"layer_norm_eps", 1e-5},
          {"projection_dim", o.dim},
          {"bos_token_id", end},
          {"eos_token_id", end},
          {"pad_token_id", end}};
}

Json whole_config(const RetrievalOptions& o, const ImageTower& tower, const Json& text) {
  const bool clip = tower.type == "clip_vision_model";
  return {{"architectures", {clip ? "CLIPModel" : "VisionTextDualEncoderModel"}},
          {"model_type", clip ? "clip" : "vision-text-dual-encoder"},
          {"projection_dim", o.dim},
          {"logit_scale_init_value", first_logits(o).scale},
          {"dtype", "float32"},
          {"text_config", text},
          {"vision_config", tower.config}};
}

/// The text tower, the projections and the scale, with first numbers.
void add_new_parameters(const RetrievalOptions& o, const Config& text, std::int64_t image_width,
                        train::Parameters& parameters) {
  const auto make = [&](const std::string& name, const Shape& shape, double deviation) {
    parameters.push_back({name, train::initial_value(name, shape, deviation, o.trainer.seed)});
    return parameters.back().tensor;
  };
  // First numbers as CLIP's: embeddings small, layers that add to the stream smaller with depth.
  const double width = 1 / std::sqrt(static_cast<double>(o.text_width)),
               adds = width / std::sqrt(2.0 * static_cast<double>(o.text_layers));
  const Weights made = Weights::made_by(
      {.make =
           [&](const std::string& name, const Shape& shape) {
             const auto has = [&](const char* part) { return name.find(part) != name.npos; };
             return make(name, shape,
                         has("embedding")                     ? 0.02
                         : has("out_proj") || has("mlp.fc2.") ? adds
                                                              : width);
           },
       .has = [](const std::string&) { return false; }});
  text::TextTower(text, made.at("text_model"));
  make("visual_projection.weight", {o.dim, image_width},
       1 / std::sqrt(static_cast<double>(image_width)));
  make("text_projection.weight", {o.dim, o.text_width}, width);
  const auto number = [&](const char* name, double x) {
    parameters.push_back({name, Tensor::from(std::vector{static_cast<float>(x)}, Shape())});
  };
  const FirstLogits first = first_logits(o);
  number("logit_scale", first.scale);
  if (first.bias) number("logit_bias", *first.bias);
}

}  // namespace

void write_new_dual(const RetrievalOptions& o, const fs::path& folder) {
  if (o.text_width % o.text_heads != 0)
    throw ArgumentError(concat(o.text_heads, " heads do not divide a width of ", o.text_width));
  const fs::path directory = o.image_tower;
  const Weights weights = Weights::open(directory);
  const ImageTower tower = image_tower_of(directory, weights);
  train::Parameters parameters = image_parameters(tower, weights, o.trainer.seed);

  make_folders(folder);
  const std::int32_t end = copy_tokenizer(o.tokenizer, folder);
  const Json text = text_config(o, text::Tokenizer::open(folder).vocab_size(), end);
  add_new_parameters(o, Config::parse(text.dump(), "text_config"),
                     tower.config.value("hidden_size", std::int64_t{768}), parameters);
  if (fs::exists(directory / "preprocessor_config.json"))
    write_file(folder / "preprocessor_config.json",
               read_text_file(directory / "preprocessor_config.json"));
  write_file(folder / "config.json", whole_config(o, tower, text).dump(2) + "\n");
  save_safetensors(folder / "model.safetensors", parameters);
}

}  // namespace tessera::cli
