#include "fusion/adapter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>

#include "core/config.h"
#include "core/error.h"
#include "core/kernels/product.h"
#include "core/layers.h"
#include "core/quantize.h"
#include "core/random.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeight = ".weight", kPeft = "base_model.model.", kA = ".lora_A.weight",
                           kB = ".lora_B.weight";

/// GPT-2's Conv1D layers keep their weight as [in, out].
bool is_conv1d(const std::string& layer) {
  return std::ranges::any_of(std::array<std::string_view, 4>{"c_attn", "c_proj", "c_fc", "q_attn"},
                             [&](std::string_view name) { return layer.ends_with(name); });
}

bool is_target(const std::string& layer, const std::vector<std::string>& targets) {
  return std::ranges::any_of(targets, [&](const std::string& target) {
    return layer == target || layer.ends_with("." + target);
  });
}

std::string layer_of(const std::string& tensor) {
  return tensor.substr(0, tensor.size() - kWeight.size());
}

std::vector<std::string> default_targets(const std::vector<NamedTensor>& checkpoint) {
  const std::vector<std::vector<std::string>> choices = {
      {"q_proj", "v_proj"}, {"query", "value"}, {"c_attn"}};
  for (const auto& choice : choices) {
    for (const NamedTensor& t : checkpoint)
      if (t.name.ends_with(kWeight) && is_target(layer_of(t.name), choice)) return choice;
  }
  return {};
}

/// PEFT's name of a layer: a bare GPT-2's is that of the model with a head.
std::string peft_layer(const std::string& layer, bool bare_gpt2) {
  return concat(std::string(kPeft), bare_gpt2 ? "transformer." : "", layer);
}

Tensor uniform(const Shape& shape, double bound, Random& random) {
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data()[i] = static_cast<float>(bound * (2 * random.uniform() - 1));
  return t;
}

Tensor number(double value) {
  return Tensor::from(std::vector<float>{static_cast<float>(value)}, {1});
}

void check_options(const LoraOptions& o) {
  if (o.rank < 1 || o.rank > 4096)
    throw ArgumentError(concat("a rank of ", o.rank, "; expected 1 to 4096"));
  if (!(o.dropout >= 0 && o.dropout < 1))
    throw ArgumentError(concat("dropout of ", o.dropout, "; expected a share below 1"));
}

// --- merging ---

/// weight += scale * B A.
void add_product(Tensor weight, bool inputs_first, const Tensor& a, const Tensor& b, float scale) {
  Context ctx({.threads = 1});
  const std::int64_t rank = a.dim(0), in = a.dim(1), out = b.dim(0);
  const Tensor scaled_b = scaled(ctx, b, scale);
  const kernels::MatrixView low{a.data(), in, inputs_first},
      high{scaled_b.data(), rank, inputs_first};
  const std::int64_t rows = inputs_first ? in : out, columns = inputs_first ? out : in;
  kernels::product(ctx, {.m = rows,
                         .n = columns,
                         .k = rank,
                         .a = inputs_first ? low : high,
                         .b = inputs_first ? high : low,
                         .initial = weight.data(),
                         .ld_initial = columns,
                         .c = weight.data(),
                         .ldc = columns});
}

/// What is stored under a name, as f32 in memory that may be changed.
Tensor own_copy(const Weights& weights, const std::string& name, const Tensor& stored) {
  return stored.dtype() == DType::f32 ? stored.clone() : weights.get_f32(name, stored.shape());
}

struct AdapterConfig {
  double scale_of_one = 0;  // alpha, to be divided by the rank
  bool root = false;        // by its root
  bool fan_in_fan_out = false;

  explicit AdapterConfig(const fs::path& folder) {
    const fs::path file = folder / "adapter_config.json";
    std::error_code ignored;
    if (!fs::exists(file, ignored))
      throw IoError(concat(folder.string(),
                           ": has no adapter_config.json; give the directory of a "
                           "LoRA adapter"));
    const Config c = Config::read(file);
    const auto refuse = [&](const std::string& what) {
      return UnsupportedError(concat(c.where(), ": ", what, " is not supported"));
    };
    if (const std::string type = c.string("peft_type", "LORA"); type != "LORA")
      throw refuse("an adapter of type " + type);
    if (c.boolean("use_dora", false)) throw refuse("DoRA");
    if (c.string("bias", "none") != "none") throw refuse("a LoRA with biases");
    if (!c.child("alpha_pattern").keys().empty()) throw refuse("alpha_pattern");
    scale_of_one = c.number("lora_alpha", 8);
    root = c.boolean("use_rslora", false);
    fan_in_fan_out = c.boolean("fan_in_fan_out", false);
  }
  float scale(std::int64_t rank) const {
    const auto r = static_cast<double>(rank);
    return static_cast<float>(scale_of_one / (root ? std::sqrt(r) : r));
  }
};

/// The checkpoint's name of a layer that PEFT names: the prefix of a model with a head may be there
/// or not.
std::optional<std::string> find_layer(const Weights& checkpoint, const std::string& layer) {
  std::vector<std::string> names = {layer};
  for (const std::string_view prefix : {"transformer.", "model."}) {
    if (layer.starts_with(prefix)) names.push_back(layer.substr(prefix.size()));
    names.push_back(concat(std::string(prefix), layer));
  }
  for (const std::string& name : names)
    if (checkpoint.has(name + std::string(kWeight))) return name;
  return std::nullopt;
}

/// Calls work(name of its A, its layer by PEFT's name, the checkpoint's) for every layer.
template <class Work>
void for_layers(const Weights& checkpoint, const Weights& adapter, const Work& work) {
  for (const std::string& name : adapter.names()) {
    if (name.ends_with(kB)) continue;
    if (!name.ends_with(kA) || !name.starts_with(kPeft)) {
      throw UnsupportedError(concat(adapter.where(name), ": not a LoRA of a linear layer"));
    }
    const std::string layer = name.substr(kPeft.size(), name.size() - kPeft.size() - kA.size());
    const auto own = find_layer(checkpoint, layer);
    if (!own) {
      throw FormatError(concat(adapter.where(name), ": the checkpoint (", checkpoint.where(),
                               ") has no layer ", layer, "; it is an adapter for another model"));
    }
    work(name, layer, *own);
  }
}

void merge(const Weights& checkpoint, const fs::path& folder, std::map<std::string, Tensor>& all) {
  const AdapterConfig config(folder);
  const Weights adapter = Weights::open(folder / "adapter_model.safetensors");
  for_layers(
      checkpoint, adapter,
      [&](const std::string& name, const std::string& layer, const std::string& own) {
        const std::string target = own + std::string(kWeight);
        const Tensor low = adapter.get(name);
        const std::int64_t rank = low.rank() == 2 ? low.dim(0) : 0,
                           in = low.rank() == 2 ? low.dim(1) : 0;
        const std::string other = concat(std::string(kPeft), layer, std::string(kB));
        const Tensor high = adapter.get(other);
        const Tensor stored = checkpoint.get(target);
        const bool turned = config.fan_in_fan_out && is_conv1d(layer);
        const Shape expected = turned ? Shape{in, high.dim(0)} : Shape{high.dim(0), in};
        if (rank < 1 || high.rank() != 2 || high.dim(1) != rank || stored.shape() != expected) {
          throw ShapeError(concat(adapter.where(name), ": ", low.shape().str(), " and ",
                                  high.shape().str(), " do not fit the checkpoint's ", target, " ",
                                  stored.shape().str(), "; it is an adapter for another model"));
        }
        Tensor& merged = all.at(target);
        if (merged.raw() == stored.raw() || merged.dtype() != DType::f32)
          merged = own_copy(checkpoint, target, stored);
        all.erase(target + "_scale");  // multiplied out
        add_product(merged, turned, low.to_f32(), high.to_f32(), config.scale(rank));
      });
}

}  // namespace

NewLora new_lora(const std::vector<NamedTensor>& checkpoint, LoraOptions options,
                 const std::string& base, std::uint64_t seed) {
  check_options(options);
  if (options.targets.empty()) options.targets = default_targets(checkpoint);
  NewLora lora;
  Random random(seed);
  bool conv1d = false;
  std::set<std::string> used;
  for (const NamedTensor& t : checkpoint) {
    if (!t.name.ends_with(kWeight) || t.tensor.rank() != 2) continue;
    const std::string layer = layer_of(t.name);
    if (!is_target(layer, options.targets)) continue;
    const bool turned = is_conv1d(layer);
    conv1d = conv1d || turned;
    const std::int64_t in = t.tensor.dim(turned ? 0 : 1), out = t.tensor.dim(turned ? 1 : 0);
    const Tensor a = uniform({options.rank, in}, 1 / std::sqrt(static_cast<double>(in)), random);
    const Tensor b = Tensor::zeros({out, options.rank});
    const std::string peft = peft_layer(layer, layer.starts_with("h."));
    lora.parameters.push_back({peft + ".lora_A.weight", a});
    lora.parameters.push_back({peft + ".lora_B.weight", b});
    lora.layers.push_back({layer + ".lora_A.weight", a});
    lora.layers.push_back({layer + ".lora_B.weight", b});
    lora.layers.push_back(
        {layer + ".lora_scale", number(options.alpha / static_cast<double>(options.rank))});
    lora.layers.push_back({layer + ".lora_dropout", number(options.dropout)});
    for (const std::string& target : options.targets)
      if (is_target(layer, {target})) used.insert(target);
  }
  for (const std::string& target : options.targets)
    if (!used.count(target))
      throw ArgumentError(concat("no linear layer's name ends with \"", target, "\""));
  if (lora.layers.empty())
    throw ArgumentError("the checkpoint has no layers that are adapted by default; name targets");
  lora.config = nlohmann::ordered_json{{"peft_type", "LORA"},
                                       {"base_model_name_or_path", base},
                                       {"task_type", nullptr},
                                       {"inference_mode", true},
                                       {"r", options.rank},
                                       {"lora_alpha", options.alpha},
                                       {"lora_dropout", options.dropout},
                                       {"target_modules", options.targets},
                                       {"bias", "none"},
                                       {"fan_in_fan_out", conv1d}}
                    .dump(2) +
                "\n";
  return lora;
}

std::vector<std::string> adapted_layers(const Weights& checkpoint, const fs::path& adapter) {
  const AdapterConfig config(adapter);
  std::vector<std::string> layers;
  for_layers(checkpoint, Weights::open(adapter / "adapter_model.safetensors"),
             [&](const std::string&, const std::string&, const std::string& own) {
               layers.push_back(own);
             });
  return layers;
}

Weights with_own_adapter(const Weights& decoder, const Weights& adapter) {
  std::map<std::string, Tensor> all;
  for (const std::string& name : decoder.names()) all[name] = decoder.get(name);
  const auto foreign = [&](const std::string& name, const auto&... found) {
    return ShapeError(concat(adapter.where(name), ": ", found..., " does not fit the decoder (",
                             decoder.where(), ")"));
  };
  struct Addition {
    std::string target;
    Tensor low, high;
    std::vector<NamedTensor> result;
  };
  std::vector<Addition> additions;
  for (const std::string& name : adapter.names()) {
    if (name == kImageEmbedding || name == kAudioEmbedding) continue;  // of what it reads
    if (name.ends_with(kB)) continue;                                  // with its A
    const Tensor tensor = adapter.get(name);
    if (!name.ends_with(kA)) {
      if (!all.count(name) || all[name].shape() != tensor.shape())
        throw foreign(name, tensor.shape().str());
      all[name] = tensor;
      all.erase(name + "_scale");
      continue;
    }
    const std::string layer = name.substr(0, name.size() - kA.size()),
                      target = layer + std::string(kWeight), other = layer + std::string(kB);
    const Tensor high = adapter.get(other);
    if (!all.count(target) || tensor.rank() != 2 || high.rank() != 2 ||
        high.dim(1) != tensor.dim(0) || all[target].shape() != Shape{high.dim(0), tensor.dim(1)})
      throw foreign(name, tensor.shape().str(), " with ", high.shape().str());
    if (decoder.precision() == Precision::in_place) {
      all[name] = tensor;
      all[other] = high;
    } else {
      additions.push_back({target, tensor.to_f32(), high.to_f32(), {}});
    }
  }
  Context ctx;
  ctx.parallel_for(std::ssize(additions), [&](std::int64_t i) {
    Addition& a = additions[static_cast<std::size_t>(i)];
    const Tensor stored = all.at(a.target), sum = own_copy(decoder, a.target, stored);
    add_product(sum, false, a.low, a.high, 1);
    a.result = {{a.target, sum}};
    if (stored.dtype() == DType::i8) a.result = stored_form(a.target, rounded(a.target, sum, 8));
  });
  for (const Addition& a : additions)
    for (const NamedTensor& part : a.result) all[part.name] = part.tensor;
  std::vector<NamedTensor> tensors;
  for (auto& [name, tensor] : all) tensors.push_back({name, std::move(tensor)});
  return Weights::of(tensors).with(decoder.precision()).with(decoder.cache_numbers());
}

Weights with_adapters(const Weights& checkpoint, const std::vector<fs::path>& adapters) {
  if (adapters.empty()) return checkpoint;
  std::map<std::string, Tensor> all;
  for (const std::string& name : checkpoint.names()) all[name] = checkpoint.get(name);
  for (const fs::path& adapter : adapters) merge(checkpoint, adapter, all);
  std::vector<NamedTensor> tensors;
  for (auto& [name, tensor] : all) tensors.push_back({name, std::move(tensor)});
  return Weights::of(tensors);
}

}  // namespace tessera::fusion
