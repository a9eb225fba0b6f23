// Images and sounds in the messages of a conversation.
#include <fstream>

#include "core/error.h"
#include "core/loss.h"
#include "core/tape.h"
#include "fusion/example_loss.h"
#include "golden/fixture.h"
#include "golden/stages.h"
#include "temporary_folder.h"
#include "tone_file.h"

namespace tessera::fusion {
namespace {

using golden::Case;
using Ids = std::vector<std::int32_t>;

constexpr const char* kPlain =
    "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ '<|endoftext|>' }}"
    "{% endif %}{% endfor %}";
constexpr const char* kSeen =
    R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a "}, )"
    R"({"type": "image", "image": "a.png"}, {"type": "text", "text": "dog"}, )"
    R"({"type": "audio", "path": "file://a.wav"}]}, )"
    R"({"role": "assistant", "content": [{"type": "text", "text": "the cat"}]}, )"
    R"({"role": "user", "content": [{"type": "image", "url": "b.png"}]}, )"
    R"({"role": "assistant", "content": "a"}]})";

class ConversationMediaTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const auto& [name, of] :
         {std::pair("a.png", "png_rgb8.png"), {"b.png", "webp_lossy.webp"}})
      std::filesystem::copy_file(Case::folder() / "../images" / of, folder_ / name);
    testing::write_tone(folder_ / "a.wav", 440);
  }
  Examples examples(const std::string& lines) const {
    std::ofstream(folder_ / "list.jsonl") << lines;
    return read_examples(folder_ / "list.jsonl");
  }
  ExampleLoss loss(std::shared_ptr<const Model> model, const std::string& lines) const {
    return {std::move(model),
            examples(lines),
            {.chat_template = text::ChatTemplate::parse(kPlain, "t")}};
  }

  testing::TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path;
  Context ctx_{{.threads = 2}};
};

TEST_P(ConversationMediaTest, PartsBecomeATextWithMarks) {
  const Example example = examples(kSeen).list.front();
  const auto content = [&](std::size_t i) { return example.messages[i].string("content"); };
  EXPECT_EQ(content(0), concat("a ", kMediaMark, "dog", kMediaMark));
  EXPECT_EQ(content(1), "the cat");
  EXPECT_EQ(content(2), kMediaMark);
  ASSERT_EQ(example.media.size(), 3u);
  EXPECT_EQ(example.media[0].image, folder_ / "a.png");
  EXPECT_EQ(example.media[1].audio.filename(), "a.wav");
  EXPECT_EQ(example.media[2].image, folder_ / "b.png");
  EXPECT_EQ(example.media[2].line, 1);
}

/// By hand: what stands where in the sequence or the memory, and which tokens are learnt.
TEST_P(ConversationMediaTest, TheLossIsThatOfTheAnswersBehindWhatIsSeen) {
  const auto model = Model::open(Case(GetParam()).dir(), {.precision = Precision::in_place});
  const auto ids = [&](const char* text) {
    return model->tokenizer->encode(text, {.parse_special = true});
  };
  const Task task = model->task("prompt");
  Sequence all(ctx_, *model, *model->decoder, task);
  Ids places, targets;
  const auto learn = [&](const char* text) {
    for (const std::int32_t id : ids(text)) {
      places.push_back(static_cast<std::int32_t>(all.ids().size()) - 1);
      targets.push_back(id);
      all.add_ids({id});
    }
  };
  all.add_ids(ids("a "));
  all.add(vision::load_image(folder_ / "a.png"));
  all.add_ids(ids("dog"));
  all.add(audio::load_sound(folder_ / "a.wav"));
  learn("the cat<|endoftext|>");
  all.add(vision::load_image(folder_ / "b.png"));
  learn("a<|endoftext|>");
  KvCache cache = model->decoder->new_cache();
  if (const Tensor memory = all.memory()) model->decoder->set_memory(ctx_, memory, cache);
  const text::Sequence sequence{&cache, std::ssize(all.ids())};
  const Tensor hidden = model->decoder->forward(ctx_, all.rows(), std::span(&sequence, 1));
  const Tensor expected =
      cross_entropy(ctx_, model->decoder->logits(ctx_, gather_rows(ctx_, hidden, places)), targets);

  const ExampleLoss given = loss(model, kSeen);
  const std::vector<std::int64_t> first = {0};
  const auto sum = given(ctx_, first, 0);
  EXPECT_EQ(sum.count, std::ssize(targets));
  EXPECT_EQ(given.targets(), sum.count);
  EXPECT_NEAR(sum.loss.data()[0], expected.data()[0], 1e-4f * expected.data()[0]);
  EXPECT_NO_THROW(given.check_media(0));
}

TEST_P(ConversationMediaTest, RowsOfFrozenTowersAreKept) {
  const auto model = Model::open(Case(GetParam()).dir(), {.precision = Precision::in_place});
  ExampleLoss given = loss(model, kSeen);
  const std::vector<std::int64_t> first = {0};
  const float before = given(ctx_, first, 0).loss.data()[0];
  {
    Tape tape;
    tape.watch(model->weights->at("decoder").get(model->weights->at("decoder").names().front()));
    const TapeScope recording(ctx_, &tape);
    given.keep_features(ctx_, folder_ / "features");
  }
  for (int i = 0; i < 2; ++i) EXPECT_FLOAT_EQ(given(ctx_, first, 0).loss.data()[0], before);
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& file :
       std::filesystem::directory_iterator(folder_ / "features"))
    ++files;
  EXPECT_EQ(files, 3u);
}

TEST_P(ConversationMediaTest, WhatCannotBeLearntIsSaid) {
  const auto open = [](const std::string& name) {
    return Model::open(Case(name).dir(), {.precision = Precision::in_place});
  };
  const auto refusal = [&](const std::string& name, const std::string& lines) -> std::string {
    try {
      loss(open(name), lines).check_media(0);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  };
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
  };
  EXPECT_EQ(refusal(GetParam(), kSeen), "nothing");
  EXPECT_TRUE(has(refusal("tessera-splice-images", kSeen), "has no sound tower"));
  std::ofstream(folder_ / "b.png") << "no picture";
  EXPECT_TRUE(has(refusal(GetParam(), kSeen), "list.jsonl:1: ")) << refusal(GetParam(), kSeen);
  std::string marked = kSeen;
  marked.replace(marked.find("dog"), 3, kMediaMark);
  EXPECT_TRUE(has(refusal(GetParam(), marked), "list.jsonl:1: messages: a text holds"));
  EXPECT_THROW(ExampleLoss(open(GetParam()), examples(kSeen),
                           {.chat_template = text::ChatTemplate::parse(
                                "{% for m in messages %}{{ m.content|replace('\uFFFC', '') }}"
                                "{% endfor %}",
                                "t")}),
               FormatError)
      << "the template leaves them out";
}

TEST_P(ConversationMediaTest, QuestionsHaveThemInOrder) {
  const auto model = Model::open(Case(GetParam()).dir());
  const auto form = text::ChatTemplate::parse(kPlain, "t");
  const Prompt question = {Text{"a "}, vision::load_image(folder_ / "a.png"), Text{"dog"},
                           audio::load_sound(folder_ / "a.wav")};
  const auto tokens = encode_question(*model->tokenizer, form, "the", question);
  const auto size = [&](const char* text) { return model->tokenizer->encode(text).size(); };
  EXPECT_EQ(tokens.media, (std::vector<std::size_t>{size("thea "), size("thea ") + size("dog")}));
  EXPECT_EQ(tokens.ids.size(), size("thea ") + size("dog"));
  EXPECT_THROW(
      encode_question(*model->tokenizer, form, "", {Text{std::string(kMediaMark)}, question[1]}),
      FormatError);
}

INSTANTIATE_TEST_SUITE_P(Golden, ConversationMediaTest,
                         ::testing::Values("tessera-splice", "tessera-memory"), golden::case_name);

}  // namespace
}  // namespace tessera::fusion
