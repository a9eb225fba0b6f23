#include "fusion/quantize.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/output_file.h"
#include "core/quantize.h"
#include "fusion/description.h"
#include "fusion/model.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What was rounded, by layer.
struct Layers {
  std::vector<std::string> eight_bits, four_bits;
};

Json quantization_config(const Layers& layers) {
  Json groups = Json::object();
  const auto add = [&](const std::vector<std::string>& names, const Json& weights) {
    if (names.empty()) return;
    groups[concat("group_", groups.size())] = {{"targets", names},
                                               {"weights", weights},
                                               {"input_activations", nullptr},
                                               {"output_activations", nullptr}};
  };
  add(layers.eight_bits, {{"num_bits", 8},
                          {"type", "int"},
                          {"symmetric", true},
                          {"strategy", "channel"},
                          {"dynamic", false}});
  add(layers.four_bits, {{"num_bits", 4},
                         {"type", "int"},
                         {"symmetric", false},
                         {"strategy", "group"},
                         {"group_size", 32},
                         {"dynamic", false}});
  const char* format = layers.four_bits.empty()    ? "int-quantized"
                       : layers.eight_bits.empty() ? "pack-quantized"
                                                   : "mixed-precision";
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"config_groups", groups},
          {"ignore", Json::array()}};
}

/// config.json with a `quantization_config` as its last member.
std::string with_quantization(const Config& config, const Layers& layers) {
  std::string text = config.dump();
  text.resize(text.rfind('}'));
  return concat(text, text.find(':') == std::string::npos ? "" : ", ",
                "\"quantization_config\": ", quantization_config(layers).dump(), "}\n");
}

/// As f16, where it is f32 of numbers that f16 has.
Tensor as_half(const Tensor& tensor) {
  constexpr float kLargest = 65504;
  if (tensor.dtype() != DType::f32) return tensor;
  const Tensor numbers = tensor.to_f32();
  const std::span<const float> from(numbers.data(), static_cast<std::size_t>(numbers.numel()));
  if (std::ranges::any_of(from, [](float x) { return !(std::abs(x) <= kLargest); })) return tensor;
  Tensor half = Tensor::empty(tensor.shape(), DType::f16);
  std::ranges::transform(from, half.data<std::uint16_t>(), f32_to_f16);
  return half;
}

/// Whether an adapter of the checkpoint's own is added to a layer, which then is to stay int8.
bool is_adapted(const Weights& weights, const std::string& layer) {
  const std::string end = concat(layer.substr(layer.find('.')), ".lora_A.weight");
  return std::ranges::any_of(weights.names(), [&](const std::string& name) {
    return name.starts_with("adapters.") && name.ends_with(end);
  });
}

}  // namespace

QuantizeReport quantize_checkpoint(const fs::path& from, const fs::path& to, Precision precision,
                                   bool half) {
  if (precision != Precision::int8 && precision != Precision::int4)
    throw ArgumentError("a checkpoint is rounded to int8 or int4");
  const auto model = Model::open(from, {.precision = precision});
  if (model->config.has("quantization_config"))
    throw ArgumentError(concat(from.string(), ": is quantised already"));
  if (model->decoder) model->decoder.operator->();  // it may not have said yet what it multiplies
  const Weights& weights = *model->weights;
  std::vector<NamedTensor> tensors;
  Layers layers;
  for (const std::string& name : weights.names()) {
    const Tensor tensor = weights.get(name);
    const Precision wanted = weights.matrix_precision(name);
    if ((wanted != Precision::int8 && wanted != Precision::int4) || tensor.rank() != 2) {
      tensors.push_back({name, half ? as_half(tensor) : tensor});
      continue;
    }
    const std::string layer = name.substr(0, name.rfind('.'));
    const bool four =
        wanted == Precision::int4 && fits_four_bits(tensor) && !is_adapted(weights, layer);
    const int bits = four ? 4 : 8;
    (bits == 4 ? layers.four_bits : layers.eight_bits).push_back(layer);
    for (NamedTensor& part : quantized(name, tensor, bits)) tensors.push_back(std::move(part));
  }
  if (layers.eight_bits.empty() && layers.four_bits.empty())
    throw ArgumentError(concat(from.string(), ": has no matrices that can be rounded"));
  QuantizeReport report{static_cast<std::int64_t>(layers.eight_bits.size()),
                        static_cast<std::int64_t>(layers.four_bits.size()), weights.bytes(), 0};
  for (const NamedTensor& t : tensors)
    report.bytes_after += static_cast<std::int64_t>(t.tensor.nbytes());

  make_new_folder(to);
  copy_description(from, to);
  save_safetensors(to / "model.safetensors", tensors);
  write_file(to / "config.json", with_quantization(model->config, layers));
  return report;
}

}  // namespace tessera::fusion
