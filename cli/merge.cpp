// merge: a checkpoint with adapters in it, as a checkpoint of its own.
#include <filesystem>

#include "cli/options.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/text_file.h"
#include "core/weights.h"
#include "fusion/description.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string from, to;
  std::vector<std::string> adapters;
};

int run(const Options& o) {
  const std::vector<fs::path> adapters(o.adapters.begin(), o.adapters.end());
  // Opened once as a model, so that what is wrong with it is said before anything is written.
  const auto model = fusion::Model::open(o.from, {.adapters = adapters, .needs_tokenizer = false});
  if (model->config.has("quantization_config"))
    throw UnsupportedError(
        concat(o.from, ": a quantised checkpoint; merge into the one it was made from"));
  fusion::make_new_folder(o.to);
  std::vector<NamedTensor> tensors;
  for (const std::string& name : model->weights->names())
    tensors.push_back({name, model->weights->get(name)});
  fusion::copy_description(o.from, o.to);
  for (const fs::path& adapter : adapters) {
    const fs::path chat = adapter / "chat_template.jinja";
    if (fs::exists(chat)) write_file(fs::path(o.to) / chat.filename(), read_text_file(chat));
  }
  write_file(fs::path(o.to) / "config.json", read_text_file(fs::path(o.from) / "config.json"));
  save_safetensors(fs::path(o.to) / "model.safetensors", tensors);
  return kOk;
}

}  // namespace

Run add_merge(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("merge", "Save a checkpoint with LoRA adapters in it");
  command.add_option("DIR", o->from, "Checkpoint directory").required().type_name("");
  command.add_option("OUT", o->to, "Folder to write").required().type_name("");
  command.add_option("--adapter", o->adapters, "LoRA adapter (may be given several times)")
      .type_name("DIR")
      .one_each()
      .required();
  command.footer("Example:\n  tessera merge gpt2 gpt2-style --adapter runs/style");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
