// What a task of a checkpoint attends to, and when it takes a sound for silence.
#include <cmath>
#include <fstream>

#include "core/error.h"
#include "fusion/example_loss.h"
#include "fusion/session.h"
#include "fusion/transcribe.h"
#include "golden/fixture.h"
#include "temporary_folder.h"
#include "tone_file.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

fs::path checkpoint(const std::string& name) { return golden::Case::folder() / name; }

/// Of a checkpoint, with text put into the settings of one of its tasks.
Config config_with(const std::string& name, const std::string& task, const std::string& text) {
  std::string config = Config::read(checkpoint(name) / "config.json").dump();
  const auto at = config.find('{', config.find(concat("\"", task, "\":")));
  EXPECT_NE(at, config.npos);
  config.insert(at + 1, concat(text, ", "));
  return Config::parse(config, "config.json");
}

std::shared_ptr<const Model> open(const std::string& name, const std::string& text,
                                  const std::string& task = "transcribe") {
  return Model::open(checkpoint(name),
                     {.precision = Precision::f32, .config = config_with(name, task, text)});
}

Image picture() {
  Image image{20, 16, std::vector<std::uint8_t>(20 * 16 * 3)};
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = static_cast<std::uint8_t>(i * 37 * (i + 3) % 251);
  return image;
}

/// At 16 kHz; a window of the tiny checkpoints is one second.
Sound tone(double seconds) {
  Sound sound;
  sound.samples.resize(static_cast<std::size_t>(seconds * audio::kSampleRate));
  for (std::size_t i = 0; i < sound.samples.size(); ++i)
    sound.samples[i] = 0.3f * std::sin(0.15f * static_cast<float>(i % 5003));
  return sound;
}

std::string refusal(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was refused";
}

void expect_same(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape().str(), b.shape().str());
  EXPECT_EQ(a.to_vector(), b.to_vector());
}

constexpr const char* kSound = R"("attends_to": ["audio"])";

class Attention : public ::testing::TestWithParam<const char*> {
 protected:
  Context ctx_{{.threads = 2}};

  Sequence sequence(const Model& model, const Task& task, const Prompt& prompt) {
    Sequence all(ctx_, model, *model.decoder, task);
    all.add_ids(task.start);
    for (const auto& part : prompt) std::visit([&](const auto& p) { all.add(p); }, part);
    return all;
  }
};

TEST_P(Attention, WhatATaskLeavesOutIsNeitherInTheSequenceNorInTheMemory) {
  const auto model = open(GetParam(), kSound);
  const Task task = model->task("transcribe"), plain = model->task("prompt");
  EXPECT_TRUE(task.attends_to_sounds);
  EXPECT_FALSE(task.attends_to_images);
  EXPECT_TRUE(plain.attends_to_sounds && plain.attends_to_images);
  const Prompt both{picture(), Text{"on"}, tone(0.5), picture()}, alone{Text{"on"}, tone(0.5)};
  const Sequence got = sequence(*model, task, both), expected = sequence(*model, task, alone);
  EXPECT_EQ(got.ids(), expected.ids());
  expect_same(got.rows(), expected.rows());
  ASSERT_EQ(static_cast<bool>(got.memory()), static_cast<bool>(expected.memory()));
  if (got.memory()) expect_same(got.memory(), expected.memory());
  // Another task of the same checkpoint has both.
  const Sequence whole = sequence(*model, plain, both), half = sequence(*model, plain, alone);
  const auto size = [](const Sequence& s) {
    return s.rows().dim(0) + (s.memory() ? s.memory().dim(0) : 0);
  };
  EXPECT_GT(size(whole), size(half));
}

TEST_P(Attention, RowsThatAreThereAlreadyAreLeftOutAsWell) {
  const auto model = open(GetParam(), R"("attends_to": ["image"])");
  const Task task = model->task("transcribe");
  Sequence all(ctx_, *model, *model->decoder, task);
  all.add_ids({1});
  all.add_sound_rows(Tensor::zeros({3, model->decoder->width()}));
  EXPECT_EQ(all.rows().dim(0), 1);
  EXPECT_FALSE(all.memory());
}

TEST_P(Attention, AnswersAreThoseWithoutWhatIsLeftOut) {
  const auto model = open(GetParam(), kSound);
  Session session(model);
  text::SamplingOptions options = session.defaults("transcribe");
  options.log_probabilities = true;
  options.max_new_tokens = 5;
  const auto run = [&](const Prompt& prompt) {
    return session.generate(prompt, {"transcribe", options}).sequences.front();
  };
  const text::Generated seen = run({picture(), tone(0.5)}), alone = run({tone(0.5)});
  ASSERT_FALSE(alone.log_probabilities.empty());
  EXPECT_EQ(seen.ids, alone.ids);
  EXPECT_EQ(seen.log_probabilities, alone.log_probabilities);  // to the bit
}

TEST_P(Attention, ExamplesAreLearntAsTheyAreAnswered) {
  const testing::TemporaryFolder folder;
  fs::copy_file(golden::Case::folder() / "../images/png_rgb8.png", folder.path / "a.png");
  testing::write_tone(folder.path / "a.wav", 440);
  const auto loss = [&](const std::shared_ptr<const Model>& model, const std::string& line) {
    std::ofstream(folder.path / "list.jsonl") << line;
    const ExampleLoss l(model, read_examples(folder.path / "list.jsonl"), {});
    return l(ctx_, std::vector<std::int64_t>{0}, 0).loss.data()[0];
  };
  const std::string both =
      R"({"image": "a.png", "audio": "a.wav", "task": "transcribe", "text": "a b"})";
  const std::string alone = R"({"audio": "a.wav", "task": "transcribe", "text": "a b"})";
  const auto all = open(GetParam(), R"("attends_to": ["image", "audio"])"),
             heard = open(GetParam(), kSound);
  EXPECT_EQ(loss(heard, both), loss(heard, alone));
  EXPECT_EQ(loss(heard, alone), loss(all, alone));
  EXPECT_NE(loss(all, both), loss(all, alone));
  const std::string problem =
      refusal([&] { loss(heard, R"({"image": "a.png", "task": "transcribe", "text": "a b"})"); });
  EXPECT_NE(problem.find("list.jsonl:1: the task \"transcribe\" attends to sounds alone"),
            std::string::npos)
      << problem;
}

TEST_P(Attention, ConversationsAreLearntSoToo) {
  const testing::TemporaryFolder folder;
  fs::copy_file(golden::Case::folder() / "../images/png_rgb8.png", folder.path / "a.png");
  testing::write_tone(folder.path / "a.wav", 440);
  const auto template_ = text::ChatTemplate::parse(
      "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ '<|endoftext|>' }}"
      "{% endif %}{% endfor %}",
      "t");
  const auto model = open(GetParam(), kSound, "prompt");
  const auto loss = [&](const std::string& parts) {
    std::ofstream(folder.path / "list.jsonl")
        << R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a "})" << parts
        << R"(]}, {"role": "assistant", "content": "the cat"}]})";
    const ExampleLoss l(model, read_examples(folder.path / "list.jsonl"),
                        {.chat_template = template_});
    return l(ctx_, std::vector<std::int64_t>{0}, 0).loss.data()[0];
  };
  const std::string image = R"(, {"type": "image", "image": "a.png"})",
                    sound = R"(, {"type": "audio", "path": "a.wav"})";
  EXPECT_NEAR(loss(image + sound), loss(sound), 1e-5f);
  EXPECT_THROW(loss(image), FormatError);
}

TEST_P(Attention, APromptOfNothingElseIsRefused) {
  const auto model = open(GetParam(), kSound);
  Session session(model);
  const std::string problem = refusal([&] {
    session.generate({picture(), Text{"on"}}, {"transcribe", {}});
  });
  EXPECT_NE(problem.find("\"transcribe\" attends to sounds alone, but was given an image"),
            std::string::npos)
      << problem;
  const auto seeing = open(GetParam(), R"("attends_to": ["image"])", "caption");
  const std::string other = refusal([&] {
    Session(seeing).generate({tone(0.5)}, {"caption", {}});
  });
  EXPECT_NE(other.find("\"caption\" attends to images alone, but was given a sound"),
            std::string::npos)
      << other;
}

INSTANTIATE_TEST_SUITE_P(Ways, Attention, ::testing::Values("tessera-memory", "tessera-splice"),
                         [](const auto& way) {
                           return std::string(way.param) == "tessera-memory" ? "Memory" : "Splice";
                         });

TEST(Task, SettingsThatMeanNothingAreNamed) {
  const struct {
    const char *checkpoint, *text, *message;
  } cases[] = {
      {"tessera-memory", R"("attends_to": [])", "attends_to: the list is empty"},
      {"tessera-memory", R"("attends_to": ["audio", "smell"])", "\"smell\" is not one of image"},
      {"tessera-memory", R"("attends_to": [1])", "attends_to[0]"},
      {"tessera-memory", R"("attends_to": {"audio": true})", "attends_to"},
      {"tessera-memory", R"("generation": {"no_speech_threshold": 60})", "from 0 to 1, found 60"},
      {"tessera-memory", R"("generation": {"no_speech_threshold": "0.6"})", "no_speech_threshold"},
      {"tessera-splice", R"("generation": {"no_speech_threshold": 0.6})", "as its memory"},
  };
  for (const auto& c : cases) {
    try {
      open(c.checkpoint, c.text);
      ADD_FAILURE() << c.text << " was accepted";
    } catch (const FormatError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("tasks.transcribe"), std::string::npos) << message;
      EXPECT_NE(message.find(c.message), std::string::npos) << message;
    }
  }
}

/// A tiny checkpoint whose tokenizer has <|nospeech|> in the place of <|audio|>.
class Silence : public ::testing::Test {
 protected:
  static constexpr std::int32_t kNoSpeech = 66;
  testing::TemporaryFolder temporary_;

  void SetUp() override {
    fs::copy(checkpoint("tessera-memory"), temporary_.path / "model");
    replace("tokenizer.json", "<|audio|>", "<|nospeech|>");
  }
  void replace(const char* file, const std::string& from, const std::string& to) {
    const fs::path path = temporary_.path / "model" / file;
    std::ifstream in(path);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto at = text.find(from);
    ASSERT_NE(at, text.npos) << from;
    std::ofstream(path) << text.replace(at, from.size(), to);
  }
  std::shared_ptr<const Model> open(double threshold) {
    const std::string text = concat(R"("generation": {"no_speech_threshold": )", threshold, "}");
    return Model::open(
        temporary_.path / "model",
        {.precision = Precision::f32, .config = config_with("tessera-memory", "transcribe", text)});
  }
  /// By hand: softmax of what follows the start token.
  double probability(const Model& model, const Sound& sound) {
    Context ctx{{.threads = 2}};
    const std::vector<std::int32_t> start = {model.task("transcribe").start.front()};
    KvCache cache = model.decoder->new_cache();
    model.decoder->set_memory(ctx, model.encode(ctx, sound), cache);
    const text::Sequence one{&cache, 1};
    const Tensor hidden =
        model.decoder->forward(ctx, model.decoder->embed(ctx, start), std::span(&one, 1));
    const std::vector<float> logits = model.decoder->logits(ctx, hidden).to_vector();
    double sum = 0;
    for (const float x : logits) sum += std::exp(static_cast<double>(x));
    return std::exp(static_cast<double>(logits[kNoSpeech])) / sum;
  }
};

TEST_F(Silence, IsWhatTheThresholdSays) {
  const double p = probability(*open(1), tone(0.5));
  ASSERT_GT(p, 0);
  for (const bool silent : {false, true}) {
    Session session(open(p * (silent ? 0.99 : 1.01)));
    const GenerateOptions options{"transcribe", session.defaults("transcribe")};
    const Result result = session.generate({tone(0.5)}, options);
    EXPECT_NEAR(result.no_speech_probability.value(), p, 1e-4 * p);
    EXPECT_EQ(result.silent, silent);
    EXPECT_EQ(result.ids.empty(), silent);
    EXPECT_NE(result.stop_reason, text::StopReason::cancelled);
    EXPECT_EQ(result.sequences.front().stop_reason, result.stop_reason);
    if (silent) {
      EXPECT_EQ(result.text, "");
      EXPECT_EQ(result.stop_reason, text::StopReason::end_of_text);
    }
  }
}

TEST_F(Silence, AskingForItChangesNoText) {
  Session asked(open(1)),
      plain(Model::open(checkpoint("tessera-memory"), {.precision = Precision::f32}));
  text::SamplingOptions options = plain.defaults("transcribe");
  options.log_probabilities = true;
  const text::Generated a = asked.generate({tone(0.5)}, {"transcribe", options}).sequences.front(),
                        b = plain.generate({tone(0.5)}, {"transcribe", options}).sequences.front();
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.log_probabilities, b.log_probabilities);
}

TEST_F(Silence, WindowsOfItHaveNoSegments) {
  const auto model = open(0);
  Session session(model);
  std::size_t shown = 0;
  TranscribeHooks hooks;
  hooks.on_segment = [&](const Segment&) { ++shown; };
  const Transcript t = transcribe(session, tone(2.5).samples, {}, hooks);
  EXPECT_EQ(t.text, "");
  EXPECT_TRUE(t.ids.empty() && t.segments.empty());
  EXPECT_EQ(shown, 0u);
  EXPECT_EQ(t.stop_reason, text::StopReason::end_of_text);
  ASSERT_GE(t.windows.size(), 3u);
  for (const Window& window : t.windows) {
    EXPECT_TRUE(window.silent);
    EXPECT_GT(window.no_speech_probability.value(), 0);
  }
  TranscribeOptions all;
  all.fallback.emplace().no_speech_threshold = 1;
  const Transcript kept = transcribe(session, tone(2.5).samples, all);
  EXPECT_EQ(kept.segments.size(), kept.windows.size());
  EXPECT_FALSE(kept.ids.empty());
}

TEST_F(Silence, IsNotLookedForWithoutSoundOrThreshold) {
  Session session(open(0));
  const Result captioned = session.generate({tone(0.5)}, {"caption", session.defaults("caption")});
  EXPECT_FALSE(captioned.no_speech_probability.has_value());
  EXPECT_FALSE(captioned.ids.empty());
  const Result seen = session.generate({picture()}, {"transcribe", session.defaults("transcribe")});
  EXPECT_FALSE(seen.no_speech_probability.has_value());
}

TEST_F(Silence, NeedsATokenForIt) {
  replace("tokenizer.json", "<|nospeech|>", "<|audio|>");
  Session session(open(0.5));
  const std::string problem = refusal([&] { session.generate({tone(0.5)}, {"transcribe", {}}); });
  EXPECT_NE(problem.find("<|nospeech|>"), std::string::npos) << problem;
}

TEST_F(Silence, CancelledIsStillCancelled) {
  Session session(open(0));
  session.cancel();
  EXPECT_EQ(session.generate({tone(0.5)}, {"transcribe", {}}).stop_reason,
            text::StopReason::cancelled);
}

TEST(LongSound, IsTranscribedByAPromptAsItIsAlone) {
  const auto model = open("tessera-memory", kSound);
  Session session(model);
  const Sound sound = tone(3.3);
  const Transcript alone = transcribe(session, sound.samples);
  ASSERT_GE(alone.windows.size(), 4u);
  std::string streamed;
  const Result result =
      session.generate({picture(), sound}, {"transcribe", {}}, [&](const std::string& piece) {
        streamed += piece;
        return true;
      });
  EXPECT_EQ(result.ids, alone.ids);
  EXPECT_EQ(streamed, result.text);
  EXPECT_EQ(result.sequences.front().text, result.text);
  EXPECT_EQ(result.stop_reason, alone.stop_reason);
  EXPECT_GT(result.timings.prefill, 0);
  int pieces = 0;
  const Result stopped = session.generate({sound}, {"transcribe", {}},
                                          [&](const std::string&) { return ++pieces < 2; });
  EXPECT_EQ(stopped.stop_reason, text::StopReason::cancelled);
  EXPECT_EQ(pieces, 2);
}

TEST(Timings, OfATranscriptHaveAPrefill) {
  for (const char* name : {"tessera-memory", "whisper-fallback"}) {
    Session session(Model::open(checkpoint(name), {.precision = Precision::f32}));
    const auto start = std::chrono::steady_clock::now();
    const Timings t = transcribe(session, tone(3.3).samples,
                                 {.language = session.model().speech ? "en" : "", .batch = 3})
                          .timings;
    const double whole =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_GT(t.encode, 0) << name;
    EXPECT_GT(t.prefill, 0) << name;
    EXPECT_GT(t.decode, 0) << name;
    EXPECT_LE(t.seconds(), whole) << name;
  }
}

}  // namespace
}  // namespace tessera::fusion
