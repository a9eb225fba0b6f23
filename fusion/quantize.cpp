#include "fusion/quantize.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/input_moments.h"
#include "core/layers.h"
#include "core/output_file.h"
#include "core/quantize.h"
#include "fusion/description.h"
#include "fusion/model.h"
#include "fusion/session.h"

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

/// A matrix as Linear multiplies it, [out, in].
Tensor matrix_of(const Weights& weights, const std::string& name) {
  const Tensor stored = weights.get(name);
  return weights.inputs_first(name) ? transposed(stored) : stored;
}

/// A matrix that is to be rounded, and to how many bits.
using Plan = std::map<std::string, int>;

Plan plan_of(const fs::path& from, const Weights& weights) {
  Plan plan;
  for (const std::string& name : weights.names()) {
    const Precision wanted = weights.matrix_precision(name);
    if (wanted != Precision::int8 && wanted != Precision::int4) continue;
    if (weights.get(name).rank() != 2) continue;
    const bool four =
        wanted == Precision::int4 && !is_adapted(weights, name.substr(0, name.rfind('.')));
    plan[name] = four ? 4 : 8;
  }
  if (plan.empty())
    throw ArgumentError(concat(from.string(), ": has no matrices that can be rounded"));
  return plan;
}

Layers layers_of(const Plan& plan) {
  Layers layers;
  for (const auto& [name, bits] : plan)
    (bits == 4 ? layers.four_bits : layers.eight_bits).push_back(name.substr(0, name.rfind('.')));
  return layers;
}

/// Runs the model on the data, as often as there is room for sums of inputs, and rounds what
/// was seen.
class Calibrator {
 public:
  Calibrator(const fs::path& from, const QuantizeOptions& options,
             const CalibrationOptions& calibration, const Weights& weights, const Plan& plan)
      : options_(options),
        weights_(weights),
        plan_(plan),
        model_(Model::open(from, {.precision = Precision::f32})),
        session_(model_, options.context),
        data_(model_, calibration) {}

  std::int64_t examples() const { return data_.size(); }

  /// By name; empty where it was cancelled.
  std::optional<std::map<std::string, RoundedMatrix>> run() {
    for (bool again = true; again;) {
      InputRecorder recorder(
          session_.context(), [&](const auto& matrices) { return is_left(matrices); }, kMostSums);
      for (std::int64_t i = 0; i < data_.size(); ++i) {
        if (!go_on("calibrate", i, data_.size())) return {};
        data_.run(session_, i);
      }
      again = recorder.lacked_room();
      for (InputMoments& layer : recorder.take())
        if (!round(layer)) return {};
    }
    if (done_.empty()) {
      const std::string data = options_.calibration->data.string();
      throw ArgumentError(concat(data.empty() ? "texts" : data,
                                 ": no matrix that is to be rounded takes part in what ",
                                 model_->path.string(), " makes of it; give other data"));
    }
    return std::move(done_);
  }

 private:
  /// Bytes of sums of inputs that are held at a time.
  static constexpr std::size_t kMostSums = std::size_t{1} << 30;

  bool go_on(const char* what, std::int64_t done, std::int64_t total) const {
    return !options_.on_progress || options_.on_progress(what, done, total);
  }
  bool is_left(const std::vector<std::string>& matrices) const {
    return std::ranges::any_of(
        matrices, [&](const std::string& m) { return plan_.contains(m) && !done_.contains(m); });
  }

  /// False where it was cancelled.
  bool round(InputMoments& layer) {
    std::map<int, Gptq> by_bits;
    for (const std::string& name : layer.matrices) {
      const auto planned = plan_.find(name);
      if (planned == plan_.end()) continue;
      const Tensor weight = matrix_of(weights_, name);
      if (weight.dim(1) != layer.sum.dim(0)) continue;  // another matrix, of an adapter
      if (!go_on("round", std::ssize(done_), std::ssize(plan_))) return false;
      const int bits = planned->second;
      const auto gptq = by_bits.try_emplace(bits, layer.sum, columns_per_scale(bits)).first;
      done_[name] = rounded(session_.context(), name, weight, bits, gptq->second);
    }
    layer.sum = {};
    return true;
  }

  const QuantizeOptions& options_;
  const Weights& weights_;
  const Plan& plan_;
  std::shared_ptr<const Model> model_;
  Session session_;
  Calibration data_;
  std::map<std::string, RoundedMatrix> done_;
};

/// All tensors of a checkpoint, those of the plan as compressed-tensors has them.
std::vector<NamedTensor> tensors_of(const Weights& weights, const Plan& plan,
                                    const std::map<std::string, RoundedMatrix>& calibrated,
                                    bool half) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : weights.names()) {
    const auto planned = plan.find(name);
    if (planned == plan.end()) {
      const Tensor tensor = weights.get(name);
      tensors.push_back({name, half ? as_half(tensor) : tensor});
      continue;
    }
    const auto known = calibrated.find(name);
    for (NamedTensor& part : stored_form(
             name,
             known != calibrated.end() ? known->second
                                       : rounded(name, matrix_of(weights, name), planned->second),
             weights.inputs_first(name)))
      tensors.push_back(std::move(part));
  }
  return tensors;
}

}  // namespace

QuantizeReport quantize_checkpoint(const fs::path& from, const fs::path& to,
                                   const QuantizeOptions& options) {
  if (options.precision != Precision::int8 && options.precision != Precision::int4)
    throw ArgumentError("a checkpoint is rounded to int8 or int4");
  auto model = Model::open(from, {.precision = options.precision});
  const Config config = model->config;
  const Weights weights = *model->weights;
  if (config.has("quantization_config"))
    throw ArgumentError(concat(from.string(), ": is quantised already"));
  if (model->decoder) model->decoder.operator->();  // it may not have said yet what it multiplies
  const Plan plan = plan_of(from, weights);
  demand_new_folder(to);  // before what may take long

  QuantizeReport report;
  std::optional<CalibrationOptions> calibration = options.calibration;
  if (calibration && calibration->data.empty() &&
      calibration->texts.empty()) {  // by the small numbers, which are faster
    Session session(model, options.context);
    calibration->texts = own_texts(session, *calibration, [&](auto done, auto total) {
      report.cancelled =
          report.cancelled || (options.on_progress && !options.on_progress("write", done, total));
      return !report.cancelled;
    });
    if (report.cancelled) return report;
  }
  model.reset();
  std::map<std::string, RoundedMatrix> calibrated;
  if (calibration) {
    Calibrator calibrator(from, options, *calibration, weights, plan);
    auto matrices = calibrator.run();
    report.examples = calibrator.examples();
    report.cancelled = !matrices;
    if (!matrices) return report;
    calibrated = std::move(*matrices);
    report.calibrated = std::ssize(calibrated);
  }
  const std::vector<NamedTensor> tensors = tensors_of(weights, plan, calibrated, options.half);
  const Layers layers = layers_of(plan);
  report.eight_bits = std::ssize(layers.eight_bits);
  report.four_bits = std::ssize(layers.four_bits);
  report.bytes_before = weights.bytes();
  for (const NamedTensor& t : tensors)
    report.bytes_after += static_cast<std::int64_t>(t.tensor.nbytes());

  make_new_folder(to);
  copy_description(from, to);
  save_safetensors(to / "model.safetensors", tensors);
  write_file(to / "config.json", with_quantization(config, layers));
  return report;
}

}  // namespace tessera::fusion
