// Whole checkpoints against HF transformers: towers, projected rows, logits, generated ids, texts.
#include <algorithm>

#include "fusion/session.h"
#include "fusion/transcribe.h"
#include "golden/fixture.h"
#include "golden/stages.h"

namespace tessera::fusion {
namespace {

using golden::Case;

Image image_of(const Tensor& raw) {
  const auto* bytes = raw.data<std::uint8_t>();
  return {raw.dim(1), raw.dim(0), {bytes, bytes + raw.numel()}};
}

class WholeCheckpoint : public ::testing::TestWithParam<std::string> {
 protected:
  Case case_{GetParam()};
  std::shared_ptr<const Model> model_ = Model::open(case_.dir(), {.precision = Precision::f32});
  Session session_{model_};

  text::SamplingOptions sampling(const std::string& task, const golden::Generated& g) {
    auto options = session_.defaults(task);
    options.apply(g.options);
    return options;
  }
};

TEST_P(WholeCheckpoint, NothingIsLeftUnread) {
  EXPECT_EQ(model_->unread, std::vector<std::string>());
}

class VisionEncoderDecoder : public WholeCheckpoint {};

TEST_P(VisionEncoderDecoder, EveryStageMatchesTheReference) {
  Context& ctx = session_.context();
  const Tensor memory = model_->encode_pixels(ctx, case_.get("pixels"));
  EXPECT_TRUE(case_.matches("memory", memory));
  KvCache cache = model_->decoder->new_cache();
  model_->decoder->set_memory(ctx, memory, cache);
  const auto ids = case_.ids("input_ids");
  golden::StageCheck stages(ctx, case_, "decoder.");
  const text::Sequence sequence{&cache, static_cast<std::int64_t>(ids.size())};
  const Tensor last =
      model_->decoder->forward(ctx, model_->decoder->embed(ctx, ids), std::span(&sequence, 1));
  EXPECT_GE(stages.finish(), 2);
  EXPECT_TRUE(case_.matches("decoder.last_hidden", last));
  EXPECT_TRUE(case_.matches("logits", model_->decoder->logits(ctx, last)));
}

TEST_P(VisionEncoderDecoder, GeneratesTheSameIds) {
  Context& ctx = session_.context();
  const Tensor memory = model_->encode_pixels(ctx, case_.get("pixels"));
  for (const golden::Generated& g : case_.generated()) {
    const auto options = sampling("caption", g);
    const Result result = session_.generate_from(
        *model_->decoder, g.prompt, model_->decoder->embed(ctx, g.prompt), memory, options, {});
    golden::expect_generated(result.sequences, g, options.stop_tokens);
    EXPECT_EQ(result.text, g.entry.string("text")) << g.name;
  }
}

TEST_P(VisionEncoderDecoder, CaptionsAnImage) {
  const golden::Generated g = case_.generated().front();
  const Result result =
      session_.generate({image_of(case_.get_raw("image"))}, {"caption", sampling("caption", g)});
  EXPECT_EQ(result.ids, golden::without_stop(g.ids, sampling("caption", g).stop_tokens));
}

class WhisperCheckpoint : public WholeCheckpoint {};

TEST_P(WhisperCheckpoint, DecoderMatchesTheReference) {
  if (!case_.has("logits")) GTEST_SKIP() << "this case is about windows";
  Context& ctx = session_.context();
  const Tensor memory = model_->encode_frames(ctx, golden::time_first(case_.get("mel")));
  EXPECT_TRUE(case_.matches("audio.last_hidden", memory));
  KvCache cache = model_->decoder->new_cache();
  model_->decoder->set_memory(ctx, memory, cache);
  const auto ids = case_.ids("input_ids");
  golden::StageCheck stages(ctx, case_, "decoder.");
  const text::Sequence sequence{&cache, static_cast<std::int64_t>(ids.size())};
  const Tensor last =
      model_->decoder->forward(ctx, model_->decoder->embed(ctx, ids), std::span(&sequence, 1));
  EXPECT_GE(stages.finish(), 2);
  EXPECT_TRUE(case_.matches("decoder.last_hidden", last));
  EXPECT_TRUE(case_.matches("logits", model_->decoder->logits(ctx, last)));

  cache.truncate(0);
  const Tensor own = model_->decoder->forward(ctx, model_->decoder->embed(ctx, ids),
                                              std::span(&sequence, 1), text::Outputs::last_rows);
  EXPECT_TRUE(golden::close_to(own, last.slice(last.dim(0) - 1, last.dim(0)), 1e-5));
}

/// HF's options of those names.
Fallback fallback(const Config& options) {
  Fallback out;
  out.temperatures = options.numbers("temperatures");
  const auto read = [&](const char* name, std::optional<double>& to) {
    if (options.has(name)) to = options.number(name);
  };
  read("compression_ratio_threshold", out.compression_ratio_threshold);
  read("logprob_threshold", out.logprob_threshold);
  read("no_speech_threshold", out.no_speech_threshold);
  return out;
}

TEST_P(WhisperCheckpoint, TranscribesAsTheReference) {
  for (const golden::Generated& g : case_.generated()) {
    TranscribeOptions options;
    options.language = g.options.string("language", "");
    options.task = g.options.string("task", "");
    options.timestamps = g.options.boolean("return_timestamps", false);
    options.condition_on_previous = g.options.boolean("condition_on_prev_tokens", false);
    options.fallback = fallback(g.options);
    options.sampling = sampling("transcribe", g);
    options.prompt_ids = golden::to_ids(g.options.integers("prompt_ids"));
    const Transcript got =
        case_.has("samples")
            ? transcribe(session_, case_.get("samples").to_vector(), options)
            : transcribe_frames(session_, golden::time_first(case_.get("mel")), options);
    EXPECT_EQ(got.ids, g.ids) << g.name;
    EXPECT_EQ(got.text,
              g.entry.string("text").substr(std::min(g.entry.string("text").find_first_not_of(' '),
                                                     g.entry.string("text").size())))
        << g.name;
    const Config windows = g.entry.at("windows");
    ASSERT_EQ(got.windows.size(), windows.size()) << g.name;
    for (std::size_t i = 0; i < windows.size(); ++i) {
      EXPECT_EQ(got.windows[i].seek, windows[i].integer("seek")) << g.name << ", window " << i;
      EXPECT_EQ(got.windows[i].prompt, golden::to_ids(windows[i].integers("prompt")))
          << g.name << ", window " << i;
      EXPECT_EQ(got.windows[i].ids, golden::to_ids(windows[i].integers("ids")))
          << g.name << ", window " << i;
      const auto expect_measured = [&](const char* what, const std::optional<double>& value) {
        ASSERT_EQ(value.has_value(), windows[i].has(what))
            << g.name << ", window " << i << ": " << what;
        if (value) {
          EXPECT_NEAR(*value, windows[i].number(what), 1e-4)
              << g.name << ", window " << i << ": " << what;
        }
      };
      expect_measured("compression_ratio", got.windows[i].compression_ratio);
      expect_measured("avg_logprob", got.windows[i].average_log_probability);
      expect_measured("no_speech_prob", got.windows[i].no_speech_probability);
      EXPECT_EQ(got.windows[i].silent, windows[i].boolean("skipped", false))
          << g.name << ", window " << i;
    }
    if (!g.entry.has("segments")) continue;
    const Config segments = g.entry.at("segments");
    ASSERT_EQ(got.segments.size(), segments.size()) << g.name;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      EXPECT_NEAR(got.segments[i].start, segments[i].number("start"), 1e-6)
          << g.name << ", segment " << i;
      EXPECT_NEAR(got.segments[i].end, segments[i].number("end"), 1e-6)
          << g.name << ", segment " << i;
      EXPECT_EQ(got.segments[i].ids, golden::to_ids(segments[i].integers("ids")))
          << g.name << ", segment " << i;
      EXPECT_EQ(got.segments[i].text, segments[i].string("text")) << g.name << ", segment " << i;
    }
  }
}

class TesseraCheckpoint : public WholeCheckpoint {
 protected:
  /// golden.json's pieces as a prompt.
  Prompt prompt(const Config& pieces) {
    Prompt prompt;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const Config piece = pieces[i];
      if (piece.has("text")) prompt.emplace_back(Text{piece.string("text")});
      if (piece.has("image")) {
        prompt.emplace_back(
            image_of(case_.get_raw("image." + std::to_string(piece.integer("image")))));
      }
      if (piece.has("audio")) {
        prompt.emplace_back(
            Sound{case_.get("samples." + std::to_string(piece.integer("audio"))).to_vector(), {}});
      }
    }
    return prompt;
  }
};

TEST_P(TesseraCheckpoint, TowersAndProjectorsMatchTheReference) {
  Context& ctx = session_.context();
  int compared = 0;
  for (int i = 0; i < 4; ++i) {
    const std::string n = std::to_string(i);
    if (case_.has("vision." + n + ".rows")) {
      EXPECT_TRUE(case_.matches("vision." + n + ".rows",
                                model_->encode_pixels(ctx, case_.get("pixels." + n))));
      ++compared;
    }
    if (case_.has("audio." + n + ".rows")) {
      EXPECT_TRUE(
          case_.matches("audio." + n + ".rows",
                        model_->encode_frames(ctx, golden::time_first(case_.get("mel." + n)))));
      ++compared;
    }
  }
  EXPECT_GE(compared, 2);
}

TEST_P(TesseraCheckpoint, PromptsGiveTheSameIds) {
  const Config prompts = case_.notes().at("prompts");
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::string task = prompts[i].string("task");
    const Config list = prompts[i].at("generate");
    for (std::size_t j = 0; j < list.size(); ++j) {
      const std::string name = "prompt " + std::to_string(i) + ", " + list[j].string("name");
      auto options = session_.defaults(task);
      options.apply(list[j].child("options"));
      golden::StageCheck stages(session_.context(), case_, std::to_string(i) + ".", true);
      const Result result = session_.generate(prompt(prompts[i].at("pieces")), {task, options});
      EXPECT_GE(stages.finish(), 3) << name;
      EXPECT_EQ(result.timings.prompt_tokens,
                static_cast<std::int64_t>(prompts[i].at("ids").size()))
          << name;
      EXPECT_EQ(result.ids,
                golden::without_stop(golden::to_ids(list[j].integers("ids")), options.stop_tokens))
          << name;
      EXPECT_EQ(result.text, list[j].string("text")) << name;
      if (!list[j].has("hypotheses")) continue;
      const Config hypotheses = list[j].at("hypotheses");
      ASSERT_EQ(result.sequences.size(), hypotheses.size()) << name;
      for (std::size_t k = 0; k < hypotheses.size(); ++k) {
        EXPECT_EQ(result.sequences[k].ids,
                  golden::without_stop(golden::to_ids(hypotheses[k].integers("ids")),
                                       options.stop_tokens))
            << name;
        EXPECT_NEAR(result.sequences[k].score, hypotheses[k].number("score"), 1e-4) << name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ved, WholeCheckpoint, ::testing::ValuesIn(Case::all("ved-")),
                         golden::case_name);
INSTANTIATE_TEST_SUITE_P(Whisper, WholeCheckpoint, ::testing::ValuesIn(Case::all("whisper-")),
                         golden::case_name);
INSTANTIATE_TEST_SUITE_P(Tessera, WholeCheckpoint, ::testing::ValuesIn(Case::all("tessera-")),
                         golden::case_name);
INSTANTIATE_TEST_SUITE_P(Golden, VisionEncoderDecoder, ::testing::ValuesIn(Case::all("ved-")),
                         golden::case_name);
INSTANTIATE_TEST_SUITE_P(Golden, WhisperCheckpoint, ::testing::ValuesIn(Case::all("whisper-")),
                         golden::case_name);
INSTANTIATE_TEST_SUITE_P(Golden, TesseraCheckpoint, ::testing::ValuesIn(Case::all("tessera-")),
                         golden::case_name);

}  // namespace
}  // namespace tessera::fusion
