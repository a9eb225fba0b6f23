#include "train/parameters.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "core/error.h"
#include "core/fingerprint.h"

namespace tessera::train {
namespace {

bool matches_any(std::string_view name, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns, [&](const std::string& p) { return name_matches(name, p); });
}

void check_patterns(const Parameters& parameters, const std::vector<std::string>& patterns) {
  for (const std::string& p : patterns) {
    if (std::ranges::none_of(parameters, [&](const auto& t) { return name_matches(t.name, p); }))
      throw ArgumentError(concat("no parameter's name matches \"", p, "\"; the first is \"",
                                 parameters.empty() ? "" : parameters.front().name, "\""));
  }
}

Parameters chosen(const Parameters& parameters, const std::vector<std::string>& patterns,
                  bool wanted) {
  check_patterns(parameters, patterns);
  Parameters out;
  for (const NamedTensor& p : parameters) {
    if (matches_any(p.name, patterns) == wanted) out.push_back(p);
  }
  return out;
}

/// Whether a head is stored beside the token embedding that it is tied to.
bool repeats_embedding(const Weights& weights, const std::string& name) {
  if (!name.ends_with("lm_head.weight") && !name.ends_with("proj_out.weight")) return false;
  const Tensor head = weights.get(name);
  for (const std::string& other : weights.names()) {
    if (!other.ends_with("embed_tokens.weight") && !other.ends_with("wte.weight")) continue;
    const Tensor table = weights.get(other);
    if (table.shape() == head.shape() && table.dtype() == head.dtype() &&
        std::memcmp(table.raw(), head.raw(), head.nbytes()) == 0)
      return true;
  }
  return false;
}

}  // namespace

bool name_matches(std::string_view name, std::string_view pattern) {
  if (pattern.empty()) return name.empty();
  if (pattern.front() == '*') {
    return name_matches(name, pattern.substr(1)) ||
           (!name.empty() && name_matches(name.substr(1), pattern));
  }
  return !name.empty() && name.front() == pattern.front() &&
         name_matches(name.substr(1), pattern.substr(1));
}

Parameters copy_of(const Weights& weights) {
  Parameters out;
  for (const std::string& name : weights.names()) {
    const Tensor stored = weights.get(name);
    const DType type = stored.dtype();
    if (type == DType::i8 && weights.has(name + "_scale")) {
      out.push_back({name, weights.get_f32(name, stored.shape())});
      continue;
    }
    constexpr std::string_view kScale = "_scale";
    const bool scale =
        name.ends_with(kScale) && weights.has(name.substr(0, name.size() - kScale.size()));
    // a buffer of old checkpoints, which HF no longer saves
    const bool buffer = type == DType::i64 && name.ends_with("embeddings.position_ids");
    if (scale || buffer || repeats_embedding(weights, name)) continue;
    if (type != DType::f32 && type != DType::f16 && type != DType::bf16) {
      throw UnsupportedError(concat(weights.where(name), ": numbers of type ", name_of(type),
                                    " can't be trained; open a checkpoint of floats"));
    }
    out.push_back({name, type == DType::f32 ? stored.clone() : stored.to_f32()});
  }
  return out;
}

Parameters matching(const Parameters& parameters, const std::vector<std::string>& patterns) {
  return chosen(parameters, patterns, true);
}

Parameters not_matching(const Parameters& parameters, const std::vector<std::string>& patterns) {
  return chosen(parameters, patterns, false);
}

std::int64_t count(const Parameters& parameters) {
  std::int64_t sum = 0;
  for (const NamedTensor& p : parameters) sum += p.tensor.numel();
  return sum;
}

Tensor initial_value(const std::string& name, const Shape& shape, double deviation,
                     std::uint64_t seed) {
  Tensor t = Tensor::zeros(shape);
  if (shape.rank() < 2) {
    if (!name.ends_with("bias")) std::fill_n(t.data(), t.numel(), 1.0f);
    return t;
  }
  std::mt19937_64 generator(seed ^ fnv1a(name));
  const auto uniform = [&] {  // in (0, 1]
    return static_cast<double>((generator() >> 11) + 1) * (1.0 / 9007199254740992.0);
  };
  for (std::int64_t i = 0; i < t.numel(); ++i) {  // Box and Muller 1958
    const double radius = std::sqrt(-2 * std::log(uniform()));
    t.data()[i] = static_cast<float>(deviation * radius * std::cos(6.283185307179586 * uniform()));
  }
  return t;
}

}  // namespace tessera::train
