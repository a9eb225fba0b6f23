#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <memory_resource>
#include <span>
#include <string>

#include "core/task_ref.h"
#include "core/tensor.h"

namespace tessera {

class Profile;  // where the time goes; see core/profile.h
class Tape;     // records operations for training; see train/
namespace kernels {
class MatmulCache;
}

enum class LogLevel { debug, info, warning };
using LogCallback = std::function<void(LogLevel, const std::string&)>;

struct ContextOptions {
  int threads = 0;  ///< 0: one per physical core this process may run on
  LogCallback log;  ///< warnings and notes; null: dropped
};

/// All that one concurrent call needs besides the (const, shared) model: worker threads, scratch
/// memory, logging. Not to be shared by calls that run at the same time. Results do not depend on
/// the number of threads, to the bit.
class Context {
 public:
  explicit Context(const ContextOptions& options = {});
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int threads() const;

  /// Calls task(i) for i in [0, count), spread over the threads; returns when all are done. How the
  /// work is cut into tasks must not depend on threads(). The first exception of a task is rethrown
  /// here.
  void parallel_for(std::int64_t count, TaskRef task);

  /// Uninitialised scratch tensor; its memory goes back to this context's pool with its last view.
  /// Tasks may call it, too.
  Tensor empty(const Shape& shape, DType type = DType::f32);
  /// Memory for lists that live as long as a step: what they give back is handed out again. Not for
  /// tasks.
  std::pmr::memory_resource* lists();
  /// Gives pooled memory that nobody uses back to the system.
  void trim();

  void log(LogLevel level, const std::string& message) const;

  /// Prepared oneDNN primitives (for the kernels).
  kernels::MatmulCache& matmul_cache();

  /// Shows intermediate results by name ("hidden.3") to whoever asked to see them: tests,
  /// debugging. Null: nobody.
  std::function<void(const std::string& name, const Tensor& value)> observer;
  void observe(const char* name, const Tensor& value) const {
    if (observer) observer(name, value);
  }
  void observe(const char* name, std::int64_t index, const Tensor& value) const {
    if (observer) observer(std::string(name) + "." + std::to_string(index), value);
  }

  /// Shows what every linear layer is given, x [N, in] with rows that may be strided, beside the
  /// names that its matrices have in the checkpoint. Null: nobody looks (see core/input_moments.h).
  std::function<void(std::span<const std::string> matrices, const Tensor& x)> input_observer;

  /// Matrices that are multiplied in place (training) are rounded to bf16 for each product, where
  /// the machine multiplies these; sums and all else stay in f32.
  bool rounded_products = false;

  Tape* tape = nullptr;        ///< null: nothing is recorded (inference)
  Profile* profile = nullptr;  ///< null: nothing is timed

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Calls work(begin, end) over [0, count) in fixed pieces, spread over the threads.
template <class Work>
void in_pieces(Context& ctx, std::int64_t count, std::int64_t piece, const Work& work) {
  ctx.parallel_for((count + piece - 1) / piece,
                   [&](std::int64_t i) { work(i * piece, std::min(count, (i + 1) * piece)); });
}

/// Physical cores this process may run on (affinity mask and cgroup quota respected), at least 1.
int physical_cores();

}  // namespace tessera
