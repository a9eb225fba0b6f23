#include "core/kernels/matmul.h"

#include <dlfcn.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <dnnl.hpp>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "core/kernels/product.h"
#include "core/kernels/vector.h"

namespace tessera::kernels {
namespace {

using Dims = dnnl::memory::dims;
using Format = dnnl::memory::format_tag;
constexpr auto kF32 = dnnl::memory::data_type::f32;
// oneDNN before 2.4 has no format for panels of 64 columns.
#if DNNL_VERSION_MAJOR > 2 || DNNL_VERSION_MINOR >= 4
constexpr bool kHasPanels = true;
constexpr auto kPanels = Format::BA16a64b;
#else
constexpr bool kHasPanels = false;
constexpr auto kPanels = Format::ba;
#endif

/// While it lives, oneDNN calls of this thread run on this thread alone (parallelism is ours: see
/// matmul()). The OpenMP runtime that oneDNN brought along is asked by name, so that nothing here
/// links against one.
class SerialOneDnn {
 public:
  SerialOneDnn() {
    if (runtime().set) {
      before_ = runtime().get();
      runtime().set(1);
    }
  }
  ~SerialOneDnn() {
    if (runtime().set) runtime().set(before_);
  }
  SerialOneDnn(const SerialOneDnn&) = delete;
  SerialOneDnn& operator=(const SerialOneDnn&) = delete;

 private:
  struct Runtime {
    int (*get)();
    void (*set)(int);
  };
  static const Runtime& runtime() {
    static const Runtime found = [] {
      const Runtime r{reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads")),
                      reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"))};
      return r.get && r.set ? r : Runtime{};
    }();
    return found;
  }
  int before_ = 1;
};

/// While it lives, no signal interrupts this thread. Kernels of oneDNN before 3.12 keep their stack
/// pointer in a buffer on the heap; a handler's frame would overwrite what lies before it
/// (https://github.com/uxlfoundation/oneDNN/issues/4845).
class WithoutSignals {
 public:
  WithoutSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~WithoutSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  WithoutSignals(const WithoutSignals&) = delete;
  WithoutSignals& operator=(const WithoutSignals&) = delete;

 private:
  sigset_t before_;
};

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::stream& stream() {
  thread_local dnnl::stream own(engine());
  return own;
}

/// All that decides which primitive computes a tile.
struct TileShape {
  std::int64_t m, n, k, ldx, ldy, ldr;  // ldr 0: no residual
  bool bias;
  Activation activation;
  auto key() const { return std::tie(m, n, k, ldx, ldy, ldr, bias, activation); }
  bool operator<(const TileShape& other) const { return key() < other.key(); }
};

dnnl::memory::desc rows(std::int64_t m, std::int64_t n, std::int64_t stride) {
  return {Dims{m, n}, kF32, Dims{stride, 1}};
}

dnnl::memory::desc weight_desc(const TileShape& t) { return {Dims{t.k, t.n}, kF32, kPanels}; }

void append_activation(dnnl::post_ops& ops, Activation activation) {
  const auto append = [&](dnnl::algorithm algorithm, float alpha) {
#if DNNL_VERSION_MAJOR >= 3
    ops.append_eltwise(algorithm, alpha, 0.0f);
#else
    ops.append_eltwise(1.0f, algorithm, alpha, 0.0f);
#endif
  };
  switch (activation) {
    case Activation::relu:
      return append(dnnl::algorithm::eltwise_relu, 0.0f);
    case Activation::gelu:
      return append(dnnl::algorithm::eltwise_gelu_erf, 0.0f);
    case Activation::gelu_tanh:
      return append(dnnl::algorithm::eltwise_gelu_tanh, 0.0f);
    case Activation::quick_gelu:
      return append(dnnl::algorithm::eltwise_swish, 1.702f);
    case Activation::silu:
      return append(dnnl::algorithm::eltwise_swish, 1.0f);
    case Activation::sigmoid:
      return append(dnnl::algorithm::eltwise_logistic, 0.0f);
    default:
      return;
  }
}

dnnl::matmul::primitive_desc describe(const TileShape& t) {
  dnnl::post_ops ops;
  append_activation(ops, t.activation);
  if (t.ldr) ops.append_binary(dnnl::algorithm::binary_add, rows(t.m, t.n, t.ldr));
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(ops);
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto x = rows(t.m, t.k, t.ldx), y = rows(t.m, t.n, t.ldy);
  const auto bias = t.bias ? rows(1, t.n, t.n) : dnnl::memory::desc();
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), x, weight_desc(t), bias, y, attributes};
#else
  const auto operation = t.bias ? dnnl::matmul::desc(x, weight_desc(t), bias, y)
                                : dnnl::matmul::desc(x, weight_desc(t), y);
  return {operation, attributes, engine()};
#endif
}

/// Whether oneDNN multiplies by a blocked weight of this shape with its fast kernels (else it would
/// take its reference). Only those for AVX-512: the AVX2 ones of oneDNN 3.7.2 give wrong sums for
/// k > 1024, and its products of plain rows are slower than ours.
bool blocked_is_fast(std::int64_t n, std::int64_t k) {
  if (!kHasPanels || !vector_kernels().has_avx512()) return false;
  const SerialOneDnn serial;
  const TileShape tile{64, n, k, k, n, n, true, Activation::gelu};
  try {
    const char* name = describe(tile).impl_info_str();
    return std::strncmp(name, "brg", 3) == 0 && std::strstr(name, "avx512") != nullptr;
  } catch (const dnnl::error&) {
    return false;
  }
}

/// [64 rows, k] -> [k][64], missing rows as zeros.
void pack_panel(const float* rows64, std::int64_t count, std::int64_t k, std::int64_t padded_k,
                float* to) {
  constexpr std::int64_t kPanel = PackedMatrix::kPanel;
  std::memset(to, 0, static_cast<std::size_t>(padded_k * kPanel) * sizeof(float));
  constexpr std::int64_t kStep = 16;
  for (std::int64_t c0 = 0; c0 < k; c0 += kStep) {
    const std::int64_t c1 = std::min(k, c0 + kStep);
    for (std::int64_t j = 0; j < count; ++j) {
      for (std::int64_t c = c0; c < c1; ++c) to[c * kPanel + j] = rows64[j * k + c];
    }
  }
}

}  // namespace

PackedMatrix PackedMatrix::pack(const StackedMatrix& source) {
  PackedMatrix packed;
  packed.n_ = source.n();
  packed.k_ = source.k();
  const StoredMatrix& first = source.parts.front();
  const auto stored_as = [&](DType type) {
    return std::ranges::all_of(source.parts, [&](const StoredMatrix& part) {
      return part.weight.dtype() == type && !part.scales && part.weight.is_contiguous();
    });
  };
  const bool half = stored_as(DType::bf16);
  packed.blocked_ = !half && blocked_is_fast(packed.n_, packed.k_);
  if (source.parts.size() == 1 && (half || (!packed.blocked_ && stored_as(DType::f32)))) {
    packed.data_ = first.weight;
    packed.shared_ = true;
    return packed;
  }
  if (half) {
    packed.data_ = Tensor::empty({packed.n_, packed.k_}, DType::bf16);
    auto* to = packed.data_.data<std::uint16_t>();
    for (const StoredMatrix& part : source.parts)
      to = std::copy_n(part.weight.data<std::uint16_t>(), part.weight.numel(), to);
    return packed;
  }
  const std::int64_t k = packed.k_, step = packed.blocked_ ? packed.padded_k() : k;
  packed.data_ = Tensor::empty(
      {packed.blocked_ ? (packed.n_ + kPanel - 1) / kPanel * kPanel : packed.n_, step});
  std::vector<float> panel(static_cast<std::size_t>(kPanel * k));
  for (std::int64_t at = 0; at < packed.n_; at += kPanel) {
    const std::int64_t count = std::min(kPanel, packed.n_ - at);
    for (std::int64_t j = 0; j < count; ++j) source.row(at + j, panel.data() + j * k);
    float* to = packed.data_.data() + at * step;
    if (packed.blocked_) {
      pack_panel(panel.data(), count, k, step, to);
    } else {
      std::copy_n(panel.data(), count * k, to);
    }
  }
  return packed;
}

void finish(const MatmulArguments& a, std::int64_t i, std::int64_t m, std::int64_t j,
            std::int64_t n, const float* sums, std::int64_t lds) {
  vector_kernels().finish({.m = m,
                           .n = n,
                           .sums = sums,
                           .lds = lds,
                           .bias = a.bias ? a.bias + j : nullptr,
                           .activation = a.activation,
                           .residual = a.residual ? a.residual + i * a.ldr + j : nullptr,
                           .ldr = a.ldr,
                           .y = a.y + i * a.ldy + j,
                           .ldy = a.ldy,
                           .coarse = a.coarse});
}

std::int64_t panels_per_task(std::int64_t panels, std::int64_t bytes) {
  constexpr std::int64_t kLeastTasks = 8, kMostBytes = 1 << 18;
  return std::clamp<std::int64_t>(panels / kLeastTasks, 1,
                                  std::max<std::int64_t>(1, kMostBytes / bytes));
}

bool fuses(Activation activation) {
  return activation != Activation::relu_squared && activation != Activation::mish &&
         activation != Activation::tanh;
}

class MatmulCache {
 public:
  struct Entry {
    dnnl::matmul::primitive_desc desc;
    dnnl::matmul primitive;
    dnnl::memory::desc scratch;
  };
  /// Shared, for the cache may drop the entry while the caller still needs it.
  std::shared_ptr<const Entry> get(const TileShape& shape) {
    const std::lock_guard lock(mutex_);
    if (const auto found = entries_.find(shape); found != entries_.end()) return found->second;
    if (entries_.size() >= kMostEntries) entries_.clear();
    const SerialOneDnn serial;
    const auto desc = describe(shape);
    auto entry = std::make_shared<Entry>(Entry{desc, dnnl::matmul(desc), desc.scratchpad_desc()});
    return entries_.emplace(shape, std::move(entry)).first->second;
  }

 private:
  static constexpr std::size_t kMostEntries = 4096;
  std::mutex mutex_;
  std::map<TileShape, std::shared_ptr<const Entry>> entries_;
};

std::shared_ptr<MatmulCache> make_matmul_cache() { return std::make_shared<MatmulCache>(); }

namespace {

/// Rows [i, i + shape.m).
void run_tile(const MatmulCache::Entry& entry, const TileShape& shape, const PackedMatrix& weight,
              const MatmulArguments& a, std::int64_t i, void* scratch) {
  const auto memory = [](const dnnl::memory::desc& desc, const void* data) {
    return dnnl::memory(desc, engine(), const_cast<void*>(data));
  };
  std::unordered_map<int, dnnl::memory> arguments{
      {DNNL_ARG_SRC, memory(rows(shape.m, shape.k, shape.ldx), a.x + i * a.ldx)},
      {DNNL_ARG_WEIGHTS, memory(weight_desc(shape), weight.column(0))},
      {DNNL_ARG_DST, memory(rows(shape.m, shape.n, shape.ldy), a.y + i * a.ldy)},
      {DNNL_ARG_SCRATCHPAD, memory(entry.scratch, scratch)}};
  if (shape.bias) arguments.emplace(DNNL_ARG_BIAS, memory(rows(1, shape.n, shape.n), a.bias));
  if (shape.ldr) {
    const int position = shape.activation == Activation::none ? 0 : 1;
    arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(position) | DNNL_ARG_SRC_1,
                      memory(rows(shape.m, shape.n, shape.ldr), a.residual + i * a.ldr));
  }
  const SerialOneDnn serial;
  const WithoutSignals quiet;
  entry.primitive.execute(stream(), arguments);
}

}  // namespace

namespace {

/// Fewer rows than this are a matter of reading the weights once: our own kernels, column by
/// column.
constexpr std::int64_t kManyRows = 16;

void few_rows(Context& ctx, const PackedMatrix& weight, const MatmulArguments& a) {
  constexpr std::int64_t kColumns = PackedMatrix::kPanel;
  const std::int64_t n = weight.n(), k = weight.k(), panels = (n + kColumns - 1) / kColumns;
  const std::int64_t per_task = panels_per_task(panels, k * kColumns * (weight.half() ? 2 : 4));
  const auto& kernels = vector_kernels();
  ctx.parallel_for((panels + per_task - 1) / per_task, [&](std::int64_t task) {
    alignas(64) float sums[kFewRows * kColumns];
    for (std::int64_t p = task * per_task; p < std::min(panels, (task + 1) * per_task); ++p) {
      const std::int64_t j = p * kColumns, columns = std::min(kColumns, n - j);
      for (std::int64_t i = 0; i < a.m; i += kFewRows) {
        const std::int64_t m = std::min(kFewRows, a.m - i);
        if (weight.blocked()) {
          kernels.few_rows_panel(a.x + i * a.ldx, a.ldx, m, weight.column(j), k, sums);
        } else {
          const WeightRows rows = weight.half() ? WeightRows{nullptr, weight.half_column(j)}
                                                : WeightRows{weight.column(j)};
          kernels.few_rows_dot(a.x + i * a.ldx, a.ldx, m, rows, columns, k, sums);
        }
        finish(a, i, m, j, columns, sums, weight.blocked() ? kColumns : columns);
      }
    }
  });
}

/// Weights as rows: our own product, which packs them as it goes.
void many_rows_unpacked(Context& ctx, const PackedMatrix& weight, const MatmulArguments& a) {
  product(ctx, {.m = a.m,
                .n = weight.n(),
                .k = weight.k(),
                .a = {a.x, a.ldx, false},
                .b = weight.half() ? MatrixView{nullptr, weight.k(), true, weight.half_column(0)}
                                   : MatrixView{weight.column(0), weight.k(), true},
                .bias = a.bias,
                .activation = a.activation,
                .residual = a.residual,
                .ldr = a.ldr,
                .c = a.y,
                .ldc = a.ldy});
}

/// Tiles of rows, each one oneDNN call over all columns (oneDNN's blocked kernels want their output
/// dense).
void many_rows(Context& ctx, const PackedMatrix& weight, const MatmulArguments& a) {
  // As few tiles as the threads can share, for each of them reads all weights.
  constexpr std::int64_t kMost = 256, kLeast = 32, kStep = 8;
  const std::int64_t threads = ctx.threads(),
                     turns = (a.m + kMost * threads - 1) / (kMost * threads);
  const std::int64_t even = (a.m + turns * threads - 1) / (turns * threads);
  const std::int64_t tile = std::max(kLeast, (even + kStep - 1) / kStep * kStep),
                     tiles = (a.m + tile - 1) / tile;
  const auto shape_of = [&](std::int64_t rows) {
    return TileShape{rows,
                     weight.n(),
                     weight.k(),
                     a.ldx,
                     a.ldy,
                     a.residual ? a.ldr : 0,
                     a.bias != nullptr,
                     a.activation};
  };
  const TileShape whole = shape_of(tile), last = shape_of(a.m - (tiles - 1) * tile);
  const auto whole_entry = ctx.matmul_cache().get(tiles > 1 ? whole : last);
  const auto last_entry = ctx.matmul_cache().get(last);
  const auto scratch_bytes = static_cast<std::int64_t>(
      std::max(whole_entry->scratch.get_size(), last_entry->scratch.get_size()));
  ctx.parallel_for(tiles, [&](std::int64_t t) {
    const bool is_last = t == tiles - 1;
    Tensor scratch = ctx.empty({scratch_bytes}, DType::u8);
    run_tile(is_last ? *last_entry : *whole_entry, is_last ? last : whole, weight, a, t * tile,
             scratch.raw());
  });
}

}  // namespace

void matmul(Context& ctx, const PackedMatrix& weight, const MatmulArguments& a) {
  if (a.m == 0 || weight.n() == 0) return;
  if (a.m < kManyRows) {
    few_rows(ctx, weight, a);
  } else if (!weight.blocked()) {
    many_rows_unpacked(ctx, weight, a);
  } else {
    many_rows(ctx, weight, a);
  }
}

}  // namespace tessera::kernels
