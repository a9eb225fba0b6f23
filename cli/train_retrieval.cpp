// train retrieval: a dual encoder of an image tower that is there already and a new text tower. A
// checkpoint with first numbers is written to RUN/start and then learns as any other (finetune).
#include "cli/train_retrieval.h"

#include "core/error.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

/// What learns where nobody says it: all but the image tower (Zhai et al. 2022 found that better),
/// of which only the layer that a ViT's class token goes through.
int learn(RetrievalOptions o, const fs::path& start) {
  o.model = start.string();
  if (o.only.empty() && o.freeze.empty()) {
    o.only = {"text_model.*", "text_projection.*", "visual_projection.*", "logit_scale"};
    const Weights weights = Weights::open(start);
    if (weights.has("vision_model.pooler.dense.weight")) o.only.push_back("vision_model.pooler.*");
    if (weights.has("logit_bias")) o.only.push_back("logit_bias");
  }
  return finetune(o);
}

int run(const RetrievalOptions& o) {
  if (o.dry_run) {
    const TemporaryFolder folder;
    write_new_dual(o, folder.path());
    return learn(o, folder.path());
  }
  o.check_folder();
  const fs::path start = fs::path(o.run) / "start";
  std::error_code ignored;
  // A run that goes on finds it there; its rows that are kept would else be computed again.
  if (!o.resume || !fs::exists(start / "model.safetensors", ignored)) write_new_dual(o, start);
  return learn(o, start);
}

}  // namespace

Run add_train_retrieval(Command& train) {
  auto o = std::make_shared<RetrievalOptions>();
  o->batch = 128;
  o->epochs = 20;
  o->trainer.schedule = {.peak = 1e-3, .floor = 0, .warmup = 100, .steps = 1};
  o->trainer.optimizer = {.beta2 = 0.98, .weight_decay = 0.2};
  o->trainer.checkpoint_every = 250;
  Command command = train.add_command("retrieval", "Train images and texts to find each other");
  command
      .add_option("DATA", o->file,
                  "JSON Lines (or a table, .csv, .tsv) of {\"image\", \"text\"}; \"text\" may be a "
                  "list")
      .required()
      .type_name("");
  command
      .add_option("--image-tower", o->image_tower,
                  "Checkpoint of a ViT, DeiT, CLIP or SigLIP; its numbers stay as they are unless "
                  "--only or --freeze say otherwise")
      .type_name("DIR")
      .required();
  command.add_option("--tokenizer", o->tokenizer, "Folder with tokenizer.json")
      .type_name("DIR")
      .required();
  o->add_common(command, "Images of a batch, each told from all others of it");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help).show_default().group("The text tower");
  };
  add("--text-layers", o->text_layers, "Blocks").range(1, 256);
  add("--text-width", o->text_width, "Numbers a token").range(1, 1 << 16);
  add("--text-heads", o->text_heads, "Heads of attention; they divide the width").range(1, 1024);
  add("--text-context", o->text_context, "Most tokens of a text; longer ones are cut")
      .range(2, 1 << 16);
  add("--dim", o->dim, "Numbers of the space that images and texts share").range(1, 1 << 16);
  command.footer(
      "Example:\n  tessera train retrieval --image-tower vit-tiny-patch16-224 --tokenizer "
      "tokenizer "
      "-o runs/search \\\n    --validation dev.jsonl photos.jsonl\n"
      "  tessera evaluate --model runs/search dev.jsonl");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
