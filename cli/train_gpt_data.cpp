#include <cmath>
#include <filesystem>
#include <random>

#include "cli/train_gpt.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

/// GPT-2's config in HF's keys.
Json gpt_config(const GptOptions& o, const text::Tokenizer& tokenizer) {
  const std::int32_t end = tokenizer.special("eos_token").value_or(0);
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"vocab_size", tokenizer.vocab_size()},
          {"n_positions", o.context},
          {"n_embd", o.width},
          {"n_layer", o.layers},
          {"n_head", o.heads},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", 1e-5},
          {"embd_pdrop", o.dropout},
          {"resid_pdrop", o.dropout},
          {"attn_pdrop", 0.0},
          {"initializer_range", 0.02},
          {"bos_token_id", end},
          {"eos_token_id", end},
          {"tie_word_embeddings", true},
          {"torch_dtype", "float32"}};
}

void append(const std::string& file, const text::Tokenizer& tokenizer,
            std::vector<std::int32_t>& ids) {
  const std::string text = read_text_file(file);
  if (text.empty()) throw FormatError(concat(file, ": is empty"));
  const auto more = tokenizer.encode(text);
  ids.insert(ids.end(), more.begin(), more.end());
  if (const auto end = tokenizer.special("eos_token")) ids.push_back(*end);
}

void check_length(const std::vector<std::int32_t>& ids, std::int64_t least, const char* what) {
  if (static_cast<std::int64_t>(ids.size()) < least)
    throw ArgumentError(concat("the ", what, " text has ", ids.size(), " tokens; at least ", least,
                               " are needed: give more text or a shorter --context"));
}

}  // namespace

NewGpt make_gpt(const GptOptions& o, const text::Tokenizer& tokenizer) {
  if (o.width % o.heads != 0)
    throw ArgumentError(concat(o.heads, " heads do not divide a width of ", o.width));
  NewGpt made;
  made.config = gpt_config(o, tokenizer).dump(2) + "\n";
  constexpr double kDeviation = 0.02;
  // Layers that add to the stream start smaller, for there are two a block (Radford et al. 2019).
  const double inner = kDeviation / std::sqrt(2.0 * static_cast<double>(o.layers));
  const Weights weights = Weights::made_by(
      {.make =
           [&](const std::string& name, const Shape& shape) {
             const bool adds = name.ends_with("c_proj.weight");
             made.parameters.push_back(
                 {name,
                  train::initial_value(name, shape, adds ? inner : kDeviation, o.trainer.seed)});
             return made.parameters.back().tensor;
           },
       .has = [](const std::string& name) { return name == "transformer.wte.weight"; }});
  made.model = text::load_language_model(Config::parse(made.config, "config.json"), weights);
  return made;
}

GptText read_gpt_text(const GptOptions& o, const text::Tokenizer& tokenizer) {
  GptText text;
  for (const std::string& file : o.files) append(file, tokenizer, text.training);
  for (const std::string& file : o.validation) append(file, tokenizer, text.held_out);
  if (o.validation.empty() && o.held_out > 0) {
    const auto kept =
        static_cast<std::ptrdiff_t>(static_cast<double>(text.training.size()) * (1 - o.held_out));
    text.held_out.assign(text.training.begin() + kept, text.training.end());
    text.training.resize(static_cast<std::size_t>(kept));
  }
  check_length(text.training, o.context + 1, "training");
  if (!text.held_out.empty()) check_length(text.held_out, 2, "held-out");
  return text;
}

text::TokenBatch gpt_batch(const GptOptions& o, const std::vector<std::int32_t>& ids,
                           std::int64_t step, std::int64_t batch) {
  const auto number = static_cast<std::uint64_t>(step * o.trainer.accumulation + batch);
  std::mt19937_64 generator(o.trainer.seed * 0x9E3779B97F4A7C15u + number);
  text::TokenBatch out;
  out.lengths.assign(static_cast<std::size_t>(o.batch), o.context);
  const auto places =
      static_cast<std::uint64_t>(ids.size()) - static_cast<std::uint64_t>(o.context);
  for (std::int64_t row = 0; row < o.batch; ++row) {
    const auto start = ids.begin() + static_cast<std::ptrdiff_t>(generator() % places);
    out.ids.insert(out.ids.end(), start, start + o.context);
    out.targets.insert(out.targets.end(), start + 1, start + o.context + 1);
  }
  return out;
}

}  // namespace tessera::cli
