// prompt: text with images and sounds; generate: text alone.
#include "fusion/prompt.h"

#include "cli/inputs.h"
#include "cli/options.h"
#include "cli/timings.h"
#include "core/error.h"
#include "core/text_file.h"
#include "fusion/sequence.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  SamplingFlags sampling;
  std::string text, file, task, system;
  bool chat = false;
  std::vector<std::string> images, sounds;
};

constexpr std::size_t kMostText = std::size_t{64} << 20;

std::string given_text(const Options& o) {
  if (!o.file.empty()) return o.file == "-" ? read_stdin(kMostText) : read_text_file(o.file);
  return o.text == "-" ? read_stdin(kMostText) : o.text;
}

fusion::Prompt build(const Options& o) {
  std::vector<vision::Image> images;
  std::vector<audio::Sound> sounds;
  for (const std::string& file : o.images) images.push_back(load_image(file));
  for (const std::string& file : o.sounds) {
    sounds.push_back(load_sound(file));
    if (!sounds.back().warning.empty()) report(concat(file, ": ", sounds.back().warning));
  }
  return fusion::parse_prompt(given_text(o), std::move(images), std::move(sounds));
}

/// The prompt as a question, to be answered by the checkpoint's chat template.
fusion::Result answer(const Options& o, const fusion::Prompt& question, fusion::Session& session,
                      text::SamplingOptions sampling, const fusion::Session::OnText& on_text) {
  const fusion::Model& model = session.model();
  if (!model.decoder) {
    throw UnsupportedError(
        concat(model.path.string(), ": this checkpoint has no text decoder and can't answer"));
  }
  const text::ChatTemplate form = o.common.chat_template(model);
  const auto tokens = fusion::encode_question(*model.tokenizer, form, o.system, question);
  if (tokens.ids.empty()) throw FormatError(concat(form.origin(), ": writes nothing"));
  const std::string end = fusion::end_of_answer(*model.tokenizer, form);
  if (const auto token = model.tokenizer->id_of(end)) {
    sampling.stop_tokens.push_back(*token);
  } else if (!end.empty()) {
    sampling.stop_strings.push_back(end);
  }
  text::GenerateHooks hooks;
  if (on_text) {
    hooks.on_token = [&](std::int32_t, const std::string& piece) {
      return piece.empty() || on_text(piece);
    };
  }
  const fusion::Task task = model.task("prompt");
  const text::LanguageModel& decoder = model.decoder_for("prompt");
  fusion::demand_attended(task, "prompt", fusion::has_images(question),
                          fusion::has_sounds(question));
  fusion::Sequence sequence(session.context(), model, decoder, task);
  auto part = question.begin();
  sequence.add_conversation(tokens, [&](std::size_t) {
    while (std::holds_alternative<fusion::Text>(*part)) ++part;
    std::visit([&](const auto& p) { sequence.add(p); }, *part++);
  });
  return session.generate_from(decoder, sequence.ids(), sequence.rows(), sequence.memory(),
                               sampling, hooks);
}

int run(const Options& o, bool marks) {
  Stopwatch watch(o.common.timings);
  fusion::Session session(watch.time("open", [&] { return o.common.open(); }), o.common.context());
  watch.attach(session);
  const InterruptGuard guard(session);
  if (!o.system.empty() && !o.chat) throw ArgumentError("--system is for --chat");
  const fusion::Prompt prompt = watch.time(
      "load", [&] { return marks ? build(o) : fusion::Prompt{fusion::Text{given_text(o)}}; });
  const std::string task = o.task.empty() ? fusion::task_of(prompt) : o.task;
  fusion::GenerateOptions generate{task, session.defaults(task)};
  o.sampling.apply(*generate.sampling);
  const bool stream = stdout_is_terminal() && !o.common.json && generate.sampling->num_beams == 1 &&
                      generate.sampling->num_return_sequences == 1;
  fusion::Session::OnText on_text;
  if (stream) {
    on_text = [](const std::string& piece) {
      print(piece);
      return true;
    };
  }
  const fusion::Result result = o.chat ? answer(o, prompt, session, *generate.sampling, on_text)
                                       : session.generate(prompt, generate, on_text);
  if (o.common.json) {
    const std::vector<std::string>& media = o.images.empty() ? o.sounds : o.images;
    Json line = result_json(media.empty() ? "" : media.front(), result);
    line["timings"] = watch.json(result.timings);
    print_json(line);
  } else if (stream) {
    print_line("");
  } else {
    for (const text::Generated& g : result.sequences) print_line(g.text);
  }
  watch.report(task, result.timings);
  return result.stop_reason == text::StopReason::cancelled ? kInterrupted : kOk;
}

void add_chat(Command& command, Options& o, const char* help) {
  command.add_flag("--chat", o.chat, help);
  command.add_option("--system", o.system, "--chat: what is said before the question")
      .type_name("TEXT");
}

}  // namespace

Run add_prompt(Command& program) {
  auto o = std::make_shared<Options>();
  Command command =
      program.add_command("prompt", "Continue a prompt of text, images and sounds in any order");
  command
      .add_option("TEXT", o->text,
                  "The text; {image} and {audio} mark where each stands; - is standard input")
      .type_name("");
  command.add_option("-f,--file", o->file, "Read the text from a file").type_name("FILE");
  command.add_option("--image", o->images, "An image (once for each)").type_name("FILE").one_each();
  command.add_option("--audio", o->sounds, "A sound (once for each)").type_name("FILE").one_each();
  command.add_option(
      "--task", o->task,
      "Start sequence: caption, transcribe or prompt (default: by what the prompt holds)");
  add_chat(command, *o, "Answer the prompt as a question, by the chat template");
  o->common.add_to(command, true);
  o->sampling.add_to(command);
  command.footer(
      "Examples:\n  tessera prompt \"{image} Two dogs\" --image dogs.jpg\n"
      "  tessera prompt \"{image}{audio}\" --image photo.jpg --audio note.wav --json");
  return [o] { return run(*o, true); };
}

Run add_generate(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("generate", "Continue a text");
  command.add_option("TEXT", o->text, "The text; - is standard input").type_name("");
  command.add_option("-f,--file", o->file, "Read the text from a file").type_name("FILE");
  add_chat(command, *o, "Answer the text as a question, by the chat template");
  o->common.add_to(command, false);
  o->sampling.add_to(command);
  command.footer(
      "Examples:\n  tessera generate --model gpt2 \"The quick brown fox\" -n 40 --temp 0.8 --seed "
      "1\n"
      "  tessera generate --model gpt2 -f story.txt --json\n"
      "  tessera generate --model SmolLM2-135M-Instruct --chat \"What is a mosaic?\"");
  return [o] { return run(*o, false); };
}

}  // namespace tessera::cli
