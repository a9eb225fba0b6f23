#pragma once
#include <string_view>

namespace tessera {

/// Element-wise functions as HF's ACT2FN names them.
enum class Activation {
  none,
  relu,
  gelu,
  gelu_tanh,
  quick_gelu,
  silu,
  tanh,
  sigmoid,
  relu_squared,
  mish
};
/// From a config's name: "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python",
/// "quick_gelu", "relu", "relu2", "silu", "swish", "tanh", "sigmoid", "mish", "linear". Throws
/// UnsupportedError.
Activation activation_from_name(std::string_view name);

}  // namespace tessera
