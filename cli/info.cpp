#include <map>

#include "cli/options.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

struct Options {
  std::string model;
  bool json = false;
};

std::string megabytes(std::int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

std::string millions(std::int64_t n) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f M", static_cast<double>(n) / 1e6);
  return text;
}

/// Bytes by number format.
std::map<std::string, std::int64_t> formats(const Weights& weights) {
  std::map<std::string, std::int64_t> bytes;
  for (const std::string& name : weights.names()) {
    const Tensor t = weights.get(name);
    bytes[name_of(t.dtype())] += static_cast<std::int64_t>(t.nbytes());
  }
  return bytes;
}

Json describe(const fusion::Model& m) {
  Json out = {{"file", m.path.string()}, {"family", m.family}};
  out["parameters"] = m.weights->parameters();
  out["bytes"] = m.weights->bytes();
  out["formats"] = formats(*m.weights);
  if (m.config.has("quantization_config")) {
    out["quantization"] = m.config.at("quantization_config").string("format", "unknown");
  }
  if (m.vision) {
    out["image_tower"] = {{"width", m.vision->width()},
                          {"patch", m.vision->patch_size()},
                          {"classes", m.vision->labels().size()}};
  }
  if (m.dual) {
    out["text_tower"] = {{"width", m.dual->text.width()},
                         {"vocabulary", m.dual->text.vocab_size()},
                         {"context", m.dual->text.max_positions()}};
    out["shared_space"] = {{"width", m.dual->width}};
  }
  if (m.audio) {
    out["sound_tower"] = {
        {"width", m.audio->width()}, {"mels", m.audio->mels()}, {"frames", m.audio->frames()}};
  }
  if (m.decoder) {
    out["decoder"] = {{"width", m.decoder->width()},
                      {"vocabulary", m.decoder->vocab_size()},
                      {"context", m.decoder->max_positions()},
                      {"cross_attention", m.decoder->has_cross_attention()}};
    out["consume"] = m.consume == fusion::Consume::memory ? "memory" : "splice";
  }
  Json tasks = Json::object();
  for (const auto& [name, task] : m.tasks) tasks[name] = task.start;
  out["tasks"] = tasks;
  if (m.speech) out["languages"] = m.speech->languages.empty() ? 1 : m.speech->languages.size();
  Json missing = Json::array();
  if ((m.decoder || m.dual) && !m.tokenizer)
    missing.push_back("tokenizer.json (or vocab.json and merges.txt)");
  std::error_code ignored;
  if ((m.vision || m.audio) &&
      !std::filesystem::exists(m.path / "preprocessor_config.json", ignored))
    missing.push_back("preprocessor_config.json");
  out["missing"] = missing;
  out["tokenizer_tokens"] = m.tokenizer ? m.tokenizer->vocab_size() : 0;
  out["unused_tensors"] = m.unread;
  return out;
}

void print_for_people(const Json& d) {
  const auto line = [](const std::string& key, const std::string& value) {
    print_row(key, value, 17);
  };
  line("checkpoint", d["file"]);
  line("family", d["family"]);
  line("parameters", concat(millions(d["parameters"]), ", ", megabytes(d["bytes"])));
  std::string types;
  for (const auto& [type, bytes] : d["formats"].items()) {
    types += concat(types.empty() ? "" : ", ", type, " ", megabytes(bytes));
  }
  line("formats", d.contains("quantization")
                      ? concat(types, " (", d["quantization"].get<std::string>(), ")")
                      : types);
  const auto part_line = [&](const char* part) {
    std::string text;
    for (const auto& [key, value] : d[part].items())
      text += concat(text.empty() ? "" : ", ", key, " ", value.dump());
    line(part, text);
  };
  for (const char* part : {"image_tower", "sound_tower", "decoder"}) {
    if (d.contains(part)) {
      part_line(part);
    } else {
      line(part, "none");
    }
  }
  for (const char* part : {"text_tower", "shared_space"})
    if (d.contains(part)) part_line(part);
  if (d.contains("consume"))
    line("images, sound",
         d["consume"] == "memory" ? "cross-attended memory" : "spliced into the text");
  for (const auto& [name, start] : d["tasks"].items())
    line(concat("task ", name), concat("starts with ", start.dump()));
  if (d.contains("languages")) line("languages", d["languages"].dump());
  line("tokenizer", concat(d["tokenizer_tokens"].dump(), " tokens"));
  std::string missing;
  for (const auto& file : d["missing"])
    missing += concat(missing.empty() ? "" : ", ", file.get<std::string>());
  line("missing", missing.empty() ? "nothing" : missing);
  line("unused", d["unused_tensors"].empty() ? "nothing" : d["unused_tensors"].dump());
}

}  // namespace

Run add_info(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("info", "Tell what a checkpoint is made of");
  command.add_option("DIR", o->model, "Checkpoint directory (default: the default model)")
      .type_name("");
  command.add_flag("--json", o->json, "Print one JSON object");
  command.footer("Examples:\n  tessera info\n  tessera info whisper-tiny.en");
  return [o] {
    const auto directory =
        o->model.empty() ? fusion::default_model() : std::filesystem::path(o->model);
    const auto model = fusion::Model::open(directory, {.needs_tokenizer = false});
    const Json description = describe(*model);
    if (o->json) {
      print_json(description);
    } else {
      print_for_people(description);
    }
    return static_cast<int>(kOk);
  };
}

}  // namespace tessera::cli
