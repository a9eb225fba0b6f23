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
          {"attn_pdrop", o.dropout},
          {"initializer_range", 0.02},
          {"bos_token_id", end},
          {"eos_token_id", end},
          {"tie_word_embeddings", true},
          {"torch_dtype", "float32"}};
}

void check_length(std::int64_t tokens, std::int64_t least, const char* what) {
  if (tokens < least)
    throw ArgumentError(concat("the ", what, " text has ", tokens, " tokens; at least ", least,
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
  const InterruptGuard guard;
  const auto folder = o.dry_run ? std::filesystem::path() : std::filesystem::path(o.run) / "tokens";
  const auto stop = [] { return InterruptGuard::interrupted(); };
  GptText text;
  text.shards = {{o.files.begin(), o.files.end()}, tokenizer, folder, stop};
  text.validation = {{o.validation.begin(), o.validation.end()}, tokenizer, folder, stop};
  text.training = text.shards.size();
  text.held_out = text.validation.size();
  if (o.validation.empty() && o.held_out > 0) {
    text.training =
        static_cast<std::int64_t>(static_cast<double>(text.training) * (1 - o.held_out));
    text.held_out = text.shards.size() - text.training;
  }
  check_length(text.training, o.context + 1, "training");
  if (text.held_out > 0) check_length(text.held_out, 2, "held-out");
  const std::int64_t evaluated = std::min(text.held_out, o.evaluate_tokens + 1);
  text.evaluated = o.validation.empty() ? text.shards.read(text.training, evaluated)
                                        : text.validation.read(0, evaluated);
  return text;
}

text::TokenBatch gpt_batch(const GptOptions& o, const GptText& text, std::int64_t step,
                           std::int64_t batch) {
  const auto number = static_cast<std::uint64_t>(step * o.trainer.accumulation + batch);
  std::mt19937_64 generator(o.trainer.seed * 0x9E3779B97F4A7C15u + number);
  text::TokenBatch out;
  out.lengths.assign(static_cast<std::size_t>(o.batch), o.context);
  const auto places = static_cast<std::uint64_t>(text.training - o.context);
  for (std::int64_t row = 0; row < o.batch; ++row) {
    const auto ids =
        text.shards.read(static_cast<std::int64_t>(generator() % places), o.context + 1);
    out.ids.insert(out.ids.end(), ids.begin(), ids.end() - 1);
    out.targets.insert(out.targets.end(), ids.begin() + 1, ids.end());
  }
  return out;
}

}  // namespace tessera::cli
