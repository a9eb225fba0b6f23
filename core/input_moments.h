#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/context.h"

namespace tessera {

/// The inputs x [1, in] that one linear layer was given: those of all matrices that lie side by
/// side in it.
struct InputMoments {
  std::vector<std::string> matrices;  ///< their names in the checkpoint
  std::int64_t rows = 0;
  Tensor sum = {};  ///< of x^T x, [in, in]; symmetric
};

/// While it lives, sums what the linear layers that run in a context are given. The same sums for
/// any number of threads.
class InputRecorder {
 public:
  /// `wanted` says of which layers, by their matrices. At most `bytes` of sums are held, those of
  /// one layer always; of layers that come when there is no more room, nothing is recorded.
  InputRecorder(Context& ctx, std::function<bool(const std::vector<std::string>& matrices)> wanted,
                std::size_t bytes);
  ~InputRecorder() { ctx_.input_observer = nullptr; }
  InputRecorder(const InputRecorder&) = delete;
  InputRecorder& operator=(const InputRecorder&) = delete;

  /// What was seen, in the order in which the layers ran first; nothing is held any more.
  std::vector<InputMoments> take();
  /// Whether there was a layer for which there was no room.
  bool lacked_room() const { return lacked_room_; }

 private:
  struct Layer {
    InputMoments moments;
    Tensor rows;  // [kRows, in], those that are not in the sum yet
    std::int64_t waiting = 0;
    bool recorded = true;
  };
  void see(std::span<const std::string> matrices, const Tensor& x);
  Layer& layer_of(std::span<const std::string> matrices, std::int64_t width);
  void add_waiting(Layer& layer);

  Context& ctx_;
  std::function<bool(const std::vector<std::string>&)> wanted_;
  std::size_t room_;
  bool lacked_room_ = false;
  std::vector<Layer> layers_;
  std::map<std::string, std::size_t> places_;  // in layers_, by the first matrix
};

}  // namespace tessera
