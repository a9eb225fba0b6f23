#include "fusion/quantize.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "core/error.h"
#include "core/layers.h"
#include "core/quantize.h"
#include "core/text_file.h"
#include "fusion/session.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

class Quantize : public ::testing::Test {
 protected:
  ~Quantize() override { fs::remove_all(out_); }
  static fs::path family(const char* name) {
    return fs::path(TESSERA_SOURCE_DIR) / "tests/data/families" / name;
  }
  static Image picture() {
    Image image{20, 16, std::vector<std::uint8_t>(20 * 16 * 3)};
    for (std::size_t i = 0; i < image.pixels.size(); ++i)
      image.pixels[i] = static_cast<std::uint8_t>(i * 37 * (i + 3) % 251);
    return image;
  }
  static std::vector<float> seen(const std::shared_ptr<const Model>& model) {
    Context ctx({.threads = 1});
    return model->encode(ctx, picture()).to_vector();
  }
  const fs::path out_ =
      fs::temp_directory_path() / ("tessera-quantized-" + std::to_string(::getpid()));
};

TEST_F(Quantize, TowersComputeWhatTheyWouldWhenRoundedAtOpening) {
  for (const char* name : {"vit-classify", "tessera-memory"}) {
    fs::remove_all(out_);
    const QuantizeReport report =
        quantize_checkpoint(family(name), out_, {.precision = Precision::int8});
    EXPECT_GT(report.eight_bits, 0) << name;
    EXPECT_LT(report.bytes_after, report.bytes_before) << name;
    const auto saved = Model::open(out_);
    EXPECT_TRUE(saved->unread.empty()) << name << ": " << saved->unread.front();
    EXPECT_EQ(saved->config.at("quantization_config").string("format"), "int-quantized");
    // What stays in floats in the file (patches, probes) is rounded by neither.
    const auto rounded = Model::open(out_, {.precision = Precision::int8}),
               original = Model::open(family(name), {.precision = Precision::int8});
    EXPECT_EQ(seen(rounded), seen(original)) << name;
  }
}

/// Words and sound are rounded where nobody said how, images and what is compared are not.
TEST_F(Quantize, AutomaticIsInt8ForWordsAndSound) {
  const auto frames_seen = [](const std::shared_ptr<const Model>& model) {
    Context ctx({.threads = 1});
    Tensor frames = Tensor::empty({model->log_mel->frames(), model->log_mel->mels()});
    for (std::int64_t i = 0; i < frames.numel(); ++i)
      frames.data()[i] = static_cast<float>(i * 7919 % 1009) / 1009;
    return model->encode_frames(ctx, frames).to_vector();
  };
  const auto words = [](const std::shared_ptr<const Model>& model) {
    Context ctx({.threads = 1});
    const std::vector<std::int32_t> ids = {1, 5, 2, 7, 3, 4, 6, 8, 9, 10, 11, 12};
    return model->decoder->head()(ctx, model->decoder->embed(ctx, ids)).to_vector();
  };
  const auto open = [](const char* name, Precision precision) {
    return Model::open(family(name), {.precision = precision});
  };
  const auto automatic = open("whisper-english", Precision::automatic),
             eight = open("whisper-english", Precision::int8),
             stored = open("whisper-english", Precision::as_stored);
  EXPECT_EQ(frames_seen(automatic), frames_seen(eight));
  EXPECT_NE(frames_seen(automatic), frames_seen(stored));
  EXPECT_EQ(words(automatic), words(eight));
  EXPECT_NE(words(automatic), words(stored));
  EXPECT_EQ(seen(open("vit-classify", Precision::automatic)),
            seen(open("vit-classify", Precision::f32)));
  // What is rounded already is taken as it is.
  quantize_checkpoint(family("tessera-memory"), out_, {.precision = Precision::int8});
  EXPECT_EQ(seen(Model::open(out_, {.precision = Precision::automatic})), seen(Model::open(out_)));
}

TEST_F(Quantize, OtherNumbersMayBeHalved) {
  const fs::path from = family("tessera-memory");
  quantize_checkpoint(from, out_, {.precision = Precision::int8, .half = true});
  const Weights saved = Weights::open(out_), original = Weights::open(from);
  for (const std::string& name : saved.names()) {
    if (name.ends_with("_scale")) continue;
    const Tensor t = saved.get(name);
    EXPECT_NE(t.dtype(), DType::f32) << name;
    if (t.dtype() != DType::f16) continue;
    const Tensor a = t.to_f32(), b = original.get_f32(name, t.shape());
    for (std::int64_t i = 0; i < a.numel(); ++i)
      ASSERT_NEAR(a.data()[i], b.data()[i], 5e-4f * std::abs(b.data()[i]) + 1e-7f) << name;
  }
  EXPECT_EQ(seen(Model::open(out_)).size(), seen(Model::open(from)).size());
}

TEST_F(Quantize, FourBitsWhereTheyFit) {
  const QuantizeReport report =
      quantize_checkpoint(family("tessera-memory"), out_, {.precision = Precision::int4});
  EXPECT_GT(report.eight_bits, 0);  // the towers
  const auto saved = Model::open(out_);
  EXPECT_TRUE(saved->unread.empty());
  EXPECT_EQ(saved->weights->parameters(),
            Model::open(family("tessera-memory"))->weights->parameters());
  EXPECT_EQ(seen(saved).size(), seen(Model::open(family("tessera-memory"))).size());
}

/// A Llama with two layers that have 4 bits, and numbers of chance.
class Calibrated : public Quantize {
 protected:
  Calibrated() {
    fs::create_directories(llama_);
    fs::copy_file(family("tessera-splice") / "tokenizer.json", llama_ / "tokenizer.json");
    write("llama/config.json",
          R"({"model_type": "llama", "vocab_size": 600, "hidden_size": 64, "intermediate_size": 96,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "max_position_embeddings": 64,
              "tie_word_embeddings": true})");
    std::vector<NamedTensor> tensors = {{"model.embed_tokens.weight", numbers({600, 64})},
                                        {"model.norm.weight", ones()}};
    for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
      const auto add = [&](const char* name, const Tensor& t) {
        tensors.push_back({concat(layer, name, ".weight"), t});
      };
      for (const char* name : {"q_proj", "o_proj"})
        add(concat("self_attn.", name).c_str(), numbers({64, 64}));
      for (const char* name : {"k_proj", "v_proj"})
        add(concat("self_attn.", name).c_str(), numbers({32, 64}));
      add("mlp.gate_proj", numbers({96, 64}));
      add("mlp.up_proj", numbers({96, 64}));
      add("mlp.down_proj", numbers({64, 96}));
      add("input_layernorm", ones());
      add("post_attention_layernorm", ones());
    }
    save_safetensors(llama_ / "model.safetensors", tensors);
    std::string text;
    for (int i = 0; i < 60; ++i) text += concat("line ", i * i, " says that ", i, " is a number\n");
    write("text.txt", text);
  }
  ~Calibrated() override { fs::remove_all(work_); }

  Tensor numbers(const Shape& shape) {
    Tensor t = Tensor::empty(shape);
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      seed_ = seed_ * 1664525u + 1013904223u;
      t.data()[i] = (static_cast<float>(seed_ >> 8) / 8388608.0f - 1) * 0.3f;
    }
    return t;
  }
  static Tensor ones() { return Tensor::from(std::vector<float>(64, 1.0f), {64}); }
  fs::path write(const std::string& name, const std::string& text) const {
    std::ofstream(work_ / name) << text;
    return work_ / name;
  }
  QuantizeOptions with(const fs::path& data, Precision precision = Precision::int4) const {
    QuantizeOptions options{.precision = precision};
    options.calibration = {.data = data};
    options.context.threads = 1;
    return options;
  }
  /// Hidden states of a text.
  static std::vector<float> states(const fs::path& path, Precision precision) {
    const auto model = Model::open(path, {.precision = precision});
    EXPECT_TRUE(model->unread.empty());
    Context ctx({.threads = 1});
    const auto ids = model->tokenizer->encode("line 7 says: a number is that");
    KvCache cache = model->decoder->new_cache();
    const text::Sequence sequence{&cache, static_cast<std::int64_t>(ids.size())};
    return model->decoder->forward(ctx, model->decoder->embed(ctx, ids), std::span(&sequence, 1))
        .to_vector();
  }
  /// Squares of what rounding changes in them.
  static double change(const fs::path& exact, const fs::path& rounded) {
    const std::vector<float> a = states(exact, Precision::f32), b = states(rounded, Precision::f32);
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i] - b[i]), 2);
    return sum;
  }
  double change(const fs::path& rounded) const { return change(llama_, rounded); }
  static std::string bytes(const fs::path& checkpoint) {
    return read_text_file(checkpoint / "model.safetensors");
  }

  std::uint32_t seed_ = 1;
  const fs::path work_ =
      fs::temp_directory_path() / ("tessera-calibrated-" + std::to_string(::getpid()));
  const fs::path llama_ = work_ / "llama";
};

TEST_F(Calibrated, RoundsSoThatOutputsChangeLess) {
  quantize_checkpoint(llama_, work_ / "nearest", {.precision = Precision::int4});
  const QuantizeReport report = quantize_checkpoint(llama_, out_, with(work_ / "text.txt"));
  EXPECT_EQ(report.four_bits, 10);
  EXPECT_EQ(report.eight_bits, 4 + 1);  // keys, values; the tokens, which no layer is given
  EXPECT_EQ(report.calibrated, 14);
  EXPECT_GT(report.examples, 5);
  EXPECT_LT(change(out_), 0.7 * change(work_ / "nearest"));
  EXPECT_TRUE(Model::open(out_)->unread.empty());
  for (const char* file : {"config.json", "tokenizer.json"})
    EXPECT_EQ(read_text_file(out_ / file), read_text_file(work_ / "nearest" / file)) << file;
}

/// GPT-2's matrices lie as [in, out], rounded to 8 bits as well; that of queries, keys and values,
/// of which values keep 8 bits, has 8.
TEST_F(Calibrated, MatricesThatLieInputsFirst) {
  const fs::path gpt2 = work_ / "gpt2", nearest = work_ / "nearest", eight = work_ / "eight";
  fs::create_directories(gpt2);
  fs::copy_file(llama_ / "tokenizer.json", gpt2 / "tokenizer.json");
  write("gpt2/config.json", R"({"model_type": "gpt2", "vocab_size": 600, "n_embd": 64,
                                "n_layer": 2, "n_head": 4, "n_positions": 64})");
  Tensor tokens = numbers({600, 64});  // which 8 bits hold exactly
  for (std::int64_t i = 0; i < tokens.numel(); ++i)
    tokens.data()[i] = i % 64 == 0 ? 127.0f / 512 : std::round(tokens.data()[i] * 400) / 512;
  std::vector<NamedTensor> tensors = {{"wte.weight", tokens},
                                      {"wpe.weight", numbers({64, 64})},
                                      {"ln_f.weight", ones()},
                                      {"ln_f.bias", numbers({64})}};
  for (const char* layer : {"h.0.", "h.1."}) {
    for (const char* norm : {"ln_1", "ln_2"}) {
      tensors.push_back({concat(layer, norm, ".weight"), ones()});
      tensors.push_back({concat(layer, norm, ".bias"), numbers({64})});
    }
    const auto add = [&](const char* name, std::int64_t in, std::int64_t out) {
      tensors.push_back({concat(layer, name, ".weight"), numbers({in, out})});
      tensors.push_back({concat(layer, name, ".bias"), numbers({out})});
    };
    add("attn.c_attn", 64, 192);
    add("attn.c_proj", 64, 64);
    add("mlp.c_fc", 64, 256);
    add("mlp.c_proj", 256, 64);
  }
  save_safetensors(gpt2 / "model.safetensors", tensors);

  EXPECT_EQ(quantize_checkpoint(gpt2, eight, {.precision = Precision::int8}).eight_bits, 4 * 2 + 1);
  const auto opened = states(gpt2, Precision::int8);
  EXPECT_EQ(states(eight, Precision::as_stored), opened) << "the numbers of opening in int8";
  EXPECT_EQ(states(eight, Precision::int8), opened);
  EXPECT_EQ(states(eight, Precision::automatic), opened);
  EXPECT_EQ(states(gpt2, Precision::automatic), opened);
  EXPECT_GT(change(gpt2, eight), 0);
  // As what is learnt from takes them: the same numbers, in floats.
  const Weights floats = Weights::open(gpt2), rounded = Weights::open(eight);
  for (const char* name : {"h.1.attn.c_proj.weight", "h.1.mlp.c_fc.weight"}) {
    const Tensor a = floats.get(name), b = rounded.get_f32(name, a.shape());
    for (std::int64_t i = 0; i < a.numel(); ++i)
      ASSERT_NEAR(a.data()[i], b.data()[i], 0.3f / 127) << name << ' ' << i;
  }

  quantize_checkpoint(gpt2, nearest, {.precision = Precision::int4});
  const QuantizeReport report = quantize_checkpoint(gpt2, out_, with(work_ / "text.txt"));
  EXPECT_EQ(report.four_bits, 3 * 2);
  EXPECT_EQ(report.eight_bits, 2 + 1);
  EXPECT_EQ(report.calibrated, 4 * 2);
  EXPECT_EQ(Weights::open(out_).get("h.0.mlp.c_fc.weight_packed").shape(), (Shape{256, 8}));
  EXPECT_LT(change(gpt2, eight), 0.1 * change(gpt2, nearest));
  EXPECT_LT(change(gpt2, out_), 0.7 * change(gpt2, nearest));
}

/// Values, and keys that heads share, keep 8 bits, in the file as in a model opened in int4, and
/// the file says which.
TEST_F(Calibrated, WhatMuchDependsOnKeeps8Bits) {
  quantize_checkpoint(llama_, out_, {.precision = Precision::int4});
  const Weights saved = Weights::open(out_);
  const auto opened = Model::open(llama_, {.precision = Precision::int4});
  const Config groups = Model::open(out_)->config.at("quantization_config").at("config_groups");
  for (const std::string layer : {"model.layers.0.self_attn.", "model.layers.1.self_attn."}) {
    for (const char* name : {"k_proj", "v_proj"}) {
      EXPECT_EQ(saved.get(concat(layer, name, ".weight")).dtype(), DType::i8) << layer << name;
      EXPECT_EQ(opened->weights->matrix_precision(concat(layer, name, ".weight")), Precision::int8);
      EXPECT_NE(groups.at("group_0").dump().find(concat(layer, name)), std::string::npos);
    }
    EXPECT_TRUE(saved.has(concat(layer, "q_proj.weight_packed")));
    EXPECT_EQ(opened->weights->matrix_precision(concat(layer, "q_proj.weight")), Precision::int4);
    EXPECT_NE(groups.at("group_1").dump().find(concat(layer, "q_proj")), std::string::npos);
  }
}

TEST_F(Calibrated, TheSameForAnyNumberOfThreads) {
  QuantizeOptions options = with(work_ / "text.txt");
  quantize_checkpoint(llama_, out_, options);
  options.context.threads = 3;
  quantize_checkpoint(llama_, work_ / "again", options);
  EXPECT_EQ(bytes(out_), bytes(work_ / "again"));
}

/// Without data: on texts that the model writes itself, each another one.
TEST_F(Calibrated, OnItsOwnTexts) {
  write("llama/tokenizer_config.json", R"({"bos_token": "<|endoftext|>"})");
  quantize_checkpoint(llama_, work_ / "nearest", {.precision = Precision::int4});
  QuantizeOptions options = with("");
  options.calibration->examples = 20;
  const QuantizeReport report = quantize_checkpoint(llama_, out_, options);
  EXPECT_EQ(report.examples, 20);
  EXPECT_EQ(report.calibrated, 14);
  EXPECT_NE(bytes(out_), bytes(work_ / "nearest"));
  options.context.threads = 3;
  quantize_checkpoint(llama_, work_ / "again", options);
  EXPECT_EQ(bytes(out_), bytes(work_ / "again"));

  Session session(Model::open(llama_));
  const auto texts = own_texts(session, {.examples = 5, .tokens = 16},
                               [](std::int64_t, std::int64_t) { return true; });
  ASSERT_EQ(texts.size(), 5);
  for (const auto& text : texts) {
    EXPECT_EQ(text.front(), session.model().tokenizer->special("bos_token"));
    EXPECT_LE(text.size(), 16);
    EXPECT_EQ(std::ranges::count(texts, text), 1);
  }
  fs::remove_all(out_);
  std::int64_t written = 0;
  options.on_progress = [&](const std::string& what, std::int64_t done, std::int64_t) {
    EXPECT_EQ(what, "write");
    written = done;
    return done < 2;
  };
  EXPECT_TRUE(quantize_checkpoint(llama_, out_, options).cancelled);
  EXPECT_LT(written, 20);
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Calibrated, TakesSoManyExamples) {
  QuantizeOptions options = with(work_ / "text.txt");
  options.calibration->examples = 3;
  EXPECT_EQ(quantize_checkpoint(llama_, out_, options).examples, 3);
}

TEST_F(Calibrated, TowersByAFolderOrByExamples) {
  const fs::path media = fs::path(TESSERA_SOURCE_DIR) / "docs/media";
  const QuantizeReport seen =
      quantize_checkpoint(family("vit-classify"), out_, with(media, Precision::int8));
  EXPECT_EQ(seen.calibrated, seen.eight_bits);
  EXPECT_TRUE(Model::open(out_)->unread.empty());
  fs::remove_all(out_);
  // A sound and images, which it answers itself; a start of each task is all that it needs.
  const QuantizeReport mixed =
      quantize_checkpoint(family("tessera-memory"), out_, with(media, Precision::int8));
  EXPECT_GT(mixed.calibrated, 25);
  fs::remove_all(out_);
  const fs::path list = write(
      "list.jsonl",
      concat(R"({"image": ")", (media / "astronaut.jpg").string(), R"(", "text": "who"})", "\n"));
  const QuantizeReport listed =
      quantize_checkpoint(family("tessera-memory"), out_, with(list, Precision::int8));
  EXPECT_EQ(listed.examples, 1);
  EXPECT_GT(listed.calibrated, 15);
  EXPECT_LT(listed.calibrated, mixed.calibrated) << "nothing was heard";
}

TEST_F(Calibrated, ACancelledOneWritesNothing) {
  QuantizeOptions options = with(work_ / "text.txt");
  for (const std::string stop_at : {"calibrate", "round"}) {
    options.on_progress = [&](const char* what, std::int64_t, std::int64_t) {
      return what != stop_at;
    };
    EXPECT_TRUE(quantize_checkpoint(llama_, out_, options).cancelled) << stop_at;
    EXPECT_FALSE(fs::exists(out_)) << stop_at;
  }
}

TEST_F(Calibrated, RefusesDataThatShowsNothing) {
  const fs::path vit = family("vit-classify");
  const auto refuses = [&](const fs::path& from, const fs::path& data, const char* because) {
    try {
      quantize_checkpoint(from, out_, with(data, Precision::int8));
      ADD_FAILURE() << data << " was taken";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(because), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(out_));
  };
  refuses(llama_, work_ / "gone", "no such file");
  refuses(llama_, write("empty.txt", ""), "has no text");
  refuses(llama_, llama_ / "model.safetensors", "is not a text");
  refuses(llama_, write("bad.jsonl", "{\"text\""), "bad.jsonl:1");
  refuses(llama_, write("empty.jsonl", ""), "empty.jsonl");
  refuses(llama_, llama_, "no images and no sounds");
  refuses(llama_, fs::path(TESSERA_SOURCE_DIR) / "docs/media", "has no tower");
  refuses(vit, work_ / "text.txt", "has no text decoder");
  refuses(family("tessera-memory"), work_ / "text.txt", "writes about images or sounds");
  refuses(family("tessera-memory"), "", "can't write texts by itself");
  refuses(vit, "", "can't write texts by itself");
  refuses(llama_, "", "no token to begin a text with");
  const fs::path bare = work_ / "bare";  // has nothing but tokens
  fs::create_directories(bare);
  fs::copy_file(llama_ / "tokenizer.json", bare / "tokenizer.json");
  write("bare/config.json",
        R"({"model_type": "gpt2", "vocab_size": 600, "n_embd": 64, "n_layer": 0, "n_head": 4})");
  save_safetensors(bare / "model.safetensors", {{"wte.weight", numbers({600, 64})},
                                                {"wpe.weight", numbers({1024, 64})},
                                                {"ln_f.weight", ones()},
                                                {"ln_f.bias", ones()}});
  refuses(bare, work_ / "text.txt", "no matrix that is to be rounded");
  QuantizeOptions none = with(work_ / "text.txt");
  none.calibration->examples = 0;
  EXPECT_THROW(quantize_checkpoint(llama_, out_, none), ArgumentError);
}

TEST(QuantizedTensors, FourBitsReadBackAsTheyWereRounded) {
  const std::int64_t rows = 11, columns = 96;
  Tensor weight = Tensor::empty({rows, columns}), x = Tensor::zeros({1, columns});
  for (std::int64_t i = 0; i < weight.numel(); ++i)
    weight.data()[i] = static_cast<float>(i * 7919 % 1009) / 1009 - 0.4f;
  for (std::int64_t i = 0; i < columns; ++i) x.data()[i] = static_cast<float>(i % 7) - 3;
  const fs::path file = fs::temp_directory_path() /
                        ("tessera-nibbles-" + std::to_string(::getpid()) + ".safetensors");
  save_safetensors(file, stored_form("fc.weight", rounded("fc.weight", weight, 4)));
  const Weights w = Weights::open(file);
  Context ctx({.threads = 1});
  for (const Precision precision : {Precision::as_stored, Precision::int4, Precision::automatic}) {
    const Linear read(w.with(precision).at("fc"), columns, rows, Linear::Bias::none);
    EXPECT_EQ(read(ctx, x).to_vector(), Linear(weight, {}, Precision::int4)(ctx, x).to_vector());
  }
  EXPECT_TRUE(w.leftovers().empty());
  fs::remove(file);
}

TEST_F(Quantize, RefusesWhatItCannotDo) {
  fs::create_directories(out_ / "something");
  EXPECT_THROW(quantize_checkpoint(family("vit-classify"), out_, {.precision = Precision::int8}),
               ArgumentError);
  fs::remove_all(out_);
  EXPECT_THROW(quantize_checkpoint(family("vit-classify"), out_, {.precision = Precision::f32}),
               ArgumentError);
  EXPECT_THROW(
      quantize_checkpoint(family("tessera-memory-int8"), out_, {.precision = Precision::int8}),
      ArgumentError);
  EXPECT_THROW(
      quantize_checkpoint(family("no-such-checkpoint"), out_, {.precision = Precision::int8}),
      IoError);
  EXPECT_FALSE(fs::exists(out_)) << "made for nothing";
}

}  // namespace
}  // namespace tessera::fusion
