#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/weights.h"

// Low-rank adapters (LoRA, Hu et al. 2021) in the form of PEFT: adapter_config.json and
// adapter_model.safetensors.
namespace tessera::fusion {

struct LoraOptions {
  std::int64_t rank = 8;
  double alpha = 16;  ///< what is added is multiplied by alpha / rank
  double dropout = 0;
  /// Linear layers whose names end with one of these. Empty: those that PEFT takes by default
  /// (queries and values of attention, c_attn of GPT-2).
  std::vector<std::string> targets;
};

/// A new adapter for a checkpoint's layers.
struct NewLora {
  /// `lora_A.weight` and `lora_B.weight` (zeros at first) of every target, by PEFT's names: what is
  /// trained and saved.
  std::vector<NamedTensor> parameters;
  /// The same numbers and what else the layers read, by the names of the checkpoint: to be given to
  /// Weights::of() with its own tensors.
  std::vector<NamedTensor> layers;
  std::string config;  ///< adapter_config.json
};

/// Throws ArgumentError where no layer is a target, or options are out of range.
NewLora new_lora(const std::vector<NamedTensor>& checkpoint, LoraOptions options,
                 const std::string& base, std::uint64_t seed);

/// The checkpoint's tensors with adapters added to them, one on top of the other; what no adapter
/// changes is shared. Throws IoError, FormatError where an adapter is one for another model,
/// UnsupportedError for kinds of adapters other than plain LoRA of linear layers.
Weights with_adapters(const Weights& checkpoint,
                      const std::vector<std::filesystem::path>& adapters);

/// The layers that an adapter is added to, by the checkpoint's names. Throws as with_adapters().
std::vector<std::string> adapted_layers(const Weights& checkpoint,
                                        const std::filesystem::path& adapter);

/// Tensors [1, D] of such an adapter that are no part of the decoder: Task::image_embedding and
/// Task::audio_embedding.
inline constexpr const char* kImageEmbedding = "image_embedding";
inline constexpr const char* kAudioEmbedding = "audio_embedding";

/// A decoder's tensors with one of the adapters that its own checkpoint keeps for some tasks:
/// NAME takes the place of the decoder's, LAYER.lora_A.weight [rank, in] and LAYER.lora_B.weight
/// [out, rank] are added to LAYER.weight, which stays int8 where it was. Where products are made
/// in place they are left beside it, to be trained. Throws FormatError, ShapeError for tensors that
/// do not belong to the decoder.
Weights with_own_adapter(const Weights& decoder, const Weights& adapter);

}  // namespace tessera::fusion
