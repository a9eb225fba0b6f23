#include "fusion/session.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "fusion/transcribe.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

fs::path family(const char* name) {
  return fs::path(TESSERA_SOURCE_DIR) / "tests/data/families" / name;
}

Image picture(int seed) {
  Image image{20, 16, std::vector<std::uint8_t>(20 * 16 * 3)};
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] =
        static_cast<std::uint8_t>((i * 37 + static_cast<std::size_t>(seed) * 101) * (i + 3) % 251);
  }
  return image;
}

/// A copy of a checkpoint in a folder of its own, whose config.json has `from` replaced by `to`.
class Edited {
 public:
  Edited(const char* name, const std::string& from, const std::string& to)
      : path_(fs::temp_directory_path() /
              ("tessera-edited-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(path_);
    fs::copy(family(name), path_, fs::copy_options::recursive);
    std::ifstream in(path_ / "config.json");
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    if (at != std::string::npos) text.replace(at, from.size(), to);
    std::ofstream(path_ / "config.json") << text;
  }
  ~Edited() { fs::remove_all(path_); }
  Edited(const Edited&) = delete;
  Edited& operator=(const Edited&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

TEST(Session, OrderOfImagesChangesASplicedPrompt) {
  Session session(Model::open(family("tessera-splice")));
  text::SamplingOptions options = session.defaults("prompt");
  options.log_probabilities = true;
  const Prompt one{picture(1), picture(2), Text{"on"}}, other{picture(2), picture(1), Text{"on"}};
  const Result a = session.generate(one, {"prompt", options}),
               b = session.generate(other, {"prompt", options});
  ASSERT_FALSE(a.sequences.front().log_probabilities.empty());
  EXPECT_NE(a.sequences.front().log_probabilities.front(),
            b.sequences.front().log_probabilities.front());
}

TEST(Session, PromptsSideBySideGetWhatTheyGetAlone) {
  Session session(Model::open(family("tessera-memory"), {.precision = Precision::f32}));
  const GenerateOptions options{"caption", session.defaults("caption")};
  std::vector<Prompt> prompts;
  for (int i = 0; i < 5; ++i) prompts.push_back({picture(i)});
  prompts[2] = {Text{"no image at all"}};  // this decoder needs one
  std::vector<std::vector<std::int32_t>> ids(prompts.size());
  std::vector<std::size_t> failed;
  std::size_t at = 0;
  session.generate_all(options, 3, [&]() -> std::optional<Session::Job> {
    if (at == prompts.size()) return std::nullopt;
    const std::size_t own = at++;
    return Session::Job{prompts[own], [&, own](const Result& r) { ids[own] = r.ids; },
                        [&, own](const std::exception_ptr&) { failed.push_back(own); }};
  });
  EXPECT_EQ(failed, (std::vector<std::size_t>{2}));
  for (const std::size_t i : {0u, 1u, 3u, 4u})
    EXPECT_EQ(ids[i], session.generate(prompts[i], options).ids) << i;
}

TEST(Session, ThreadsDoNotChangeAnything) {
  const auto model = Model::open(family("tessera-memory"));
  std::vector<std::vector<float>> seen;
  for (const int threads : {1, 2, 5}) {
    Session session(model, {.threads = threads});
    text::SamplingOptions options = session.defaults("caption");
    options.num_beams = 1;
    options.log_probabilities = true;
    seen.push_back(
        session.generate({picture(3)}, {"caption", options}).sequences.front().log_probabilities);
  }
  ASSERT_FALSE(seen[0].empty());
  EXPECT_EQ(seen[0], seen[1]);  // to the bit
  EXPECT_EQ(seen[0], seen[2]);
}

TEST(Session, StreamedPiecesAreTheText) {
  Session session(Model::open(family("tessera-memory")));
  std::string streamed;
  text::SamplingOptions options = session.defaults("prompt");
  options.num_beams = 1;
  const Result result = session.generate({picture(4), Text{"on"}}, {"prompt", options},
                                         [&](const std::string& piece) {
                                           streamed += piece;
                                           return true;
                                         });
  EXPECT_FALSE(result.text.empty());
  EXPECT_EQ(streamed, result.text);
}

TEST(Session, CancelledIsAResultNotAnError) {
  Session session(Model::open(family("tessera-memory")));
  session.cancel();
  EXPECT_EQ(session.generate({picture(4)}, {"prompt", {}}).stop_reason,
            text::StopReason::cancelled);
  session.reset();
  EXPECT_NE(session.generate({picture(4)}, {"prompt", {}}).stop_reason,
            text::StopReason::cancelled);
}

TEST(Session, PrefillAndDecodingAreTimedApartWithBeamsToo) {
  Session session(Model::open(family("tessera-memory")));
  text::SamplingOptions sampling = session.defaults("prompt");
  sampling.max_new_tokens = 20;
  sampling.num_beams = 4;
  sampling.stop_tokens.clear();
  session.generate({picture(4)}, {"prompt", sampling});  // the first call prepares the kernels
  Timings t;
  for (int i = 0; i < 10; ++i)  // together they outlast an interruption by the system
    t += session.generate({picture(4)}, {"prompt", sampling}).timings;
  EXPECT_GT(t.prefill, 0);
  EXPECT_GT(t.decode, t.prefill);  // 20 steps of 4 rows beside one pass of a few
}

TEST(Session, WhatTheModelCannotTakeIsNamed) {
  Session pictures(Model::open(family("tessera-splice-images"))),
      sounds(Model::open(family("tessera-memory-sounds")));
  EXPECT_THROW(pictures.generate({Sound{std::vector<float>(1600), {}}}), UnsupportedError);
  EXPECT_THROW(sounds.generate({picture(1)}), UnsupportedError);
  EXPECT_THROW(transcribe(pictures, std::vector<float>(1600)), UnsupportedError);
  EXPECT_THROW(transcribe(sounds, {}), ArgumentError);
  EXPECT_THROW(transcribe(sounds, std::vector<float>(1600), {.language = "de"}), ArgumentError);
  Session classifier(Model::open(family("vit-classify")));
  EXPECT_THROW(classifier.generate({picture(1)}), UnsupportedError);
  EXPECT_EQ(classifier.classify(picture(1), 3).size(), 3u);
  EXPECT_THROW(pictures.classify(picture(1), 3), UnsupportedError);
}

TEST(Session, UnknownLanguagesAndTasksAreArgumentErrors) {
  Session many(Model::open(family("whisper-multilingual"))),
      english(Model::open(family("whisper-english")));
  const std::vector<float> samples(1600, 0.01f);
  EXPECT_THROW(transcribe(many, samples, {.language = "klingon"}), ArgumentError);
  EXPECT_THROW(transcribe(english, samples, {.language = "de"}), ArgumentError);
  EXPECT_THROW(transcribe(english, samples, {.task = "translate"}), ArgumentError);
}

TEST(Model, BrokenConfigsAreErrorsThatNameTheKey) {
  const struct {
    const char *checkpoint, *from, *to, *message;
  } cases[] = {
      {"tessera-memory", "\"consume\": \"memory\"", "\"consume\": \"osmosis\"", "osmosis"},
      {"tessera-memory", "\"tessera_version\": 1", "\"tessera_version\": 2", "tessera_version"},
      {"tessera-memory", "\"type\": \"mlp\"", "\"type\": \"magic\"", "magic"},
      {"tessera-memory", "\"reduce\": \"none\"", "\"reduce\": \"sum\"", "sum"},
      {"tessera-splice", "\"consume\": \"splice\"", "\"consume\": \"memory\"", "cross-attention"},
      {"vit-classify", "\"model_type\": \"vit\"", "\"model_type\": \"vat\"",
       "known are clip, clip_vision_model, deit, gpt2, llama, siglip, siglip_vision_model, "
       "tessera, "
       "vision-encoder-decoder, vision-text-dual-encoder, vit, whisper"},
      {"vit-classify", "\"num_attention_heads\": 3", "\"num_attention_heads\": 4", "heads"},
      {"vit-classify", "\"hidden_size\": 18", "\"hidden_size\": -18", "hidden_size"},
      {"vit-classify", "\"hidden_size\": 18", "\"hidden_size\": 21", "[21"},
      {"vit-no-bias", "\"qkv_bias\": false", "\"qkv_bias\": true", "query.bias"},
  };
  for (const auto& c : cases) {
    const Edited edited(c.checkpoint, c.from, c.to);
    try {
      Model::open(edited.path());
      ADD_FAILURE() << c.to << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(c.message), std::string::npos)
          << c.to << ": " << error.what();
    }
  }
}

TEST(Model, MissingFilesAreNamed) {
  EXPECT_THROW(Model::open(family("no-such-checkpoint")), IoError);
  EXPECT_THROW(Model::open(family("vit-classify") / "config.json"), IoError);
  const Edited edited("tessera-memory", "\"consume\"", "\"consume\"");
  fs::remove(edited.path() / "tokenizer.json");
  EXPECT_THROW(Model::open(edited.path()), IoError);
}

// What int(frames * 0.01 / 0.02) * 0.02 is in HF, where frames is a tensor and the product f32.
TEST(SpeechTokens, UntimedWindowsLastWholeSteps) {
  EXPECT_DOUBLE_EQ(untimed_length(3000), 30.0);
  EXPECT_DOUBLE_EQ(untimed_length(2999), 1499 * 0.02);
  EXPECT_DOUBLE_EQ(untimed_length(31), 15 * 0.02);
  EXPECT_DOUBLE_EQ(untimed_length(30), 14 * 0.02);  // 0.3f / 0.02f is below 15
  EXPECT_DOUBLE_EQ(untimed_length(802), 400 * 0.02);
  EXPECT_DOUBLE_EQ(untimed_length(1), 0.0);
}

}  // namespace
}  // namespace tessera::fusion
