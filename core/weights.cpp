#include "core/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "core/safetensors.h"
#include "core/weights_files.h"

namespace tessera {

/// The tensors of all files, sorted by name.
struct Weights::Store {
  struct Stored {
    safetensors::Entry entry;
    const OpenFile* file;  // null: the tensor is in memory
    Tensor tensor;
  };
  std::string origin;  // what was opened
  std::optional<Maker> maker;
  std::vector<OpenFile> files;
  std::vector<Stored> tensors;
  std::unique_ptr<std::atomic<bool>[]> read;            // by position in tensors
  std::unique_ptr<std::atomic<Precision>[]> precision;  // of matrices; as_stored: nothing known
  std::unique_ptr<std::atomic<bool>[]> inputs_first;    // of matrices

  /// Brings the tensors in order; returns the first of two with the same name, else null.
  const Stored* sort() {
    std::sort(tensors.begin(), tensors.end(),
              [](const auto& a, const auto& b) { return a.entry.name < b.entry.name; });
    const auto twice = std::adjacent_find(
        tensors.begin(), tensors.end(),
        [](const auto& a, const auto& b) { return a.entry.name == b.entry.name; });
    return twice == tensors.end() ? nullptr : &*twice;
  }
  void forget_what_was_read() {
    read = std::make_unique<std::atomic<bool>[]>(tensors.size());
    precision = std::make_unique<std::atomic<Precision>[]>(tensors.size());
    inputs_first = std::make_unique<std::atomic<bool>[]>(tensors.size());
  }

  /// Positions of the names that start with `prefix`.
  std::pair<std::size_t, std::size_t> range(std::string_view prefix) const {
    const auto begin =
        std::lower_bound(tensors.begin(), tensors.end(), prefix,
                         [](const Stored& s, std::string_view p) { return s.entry.name < p; });
    const auto end = std::partition_point(
        begin, tensors.end(), [&](const Stored& s) { return s.entry.name.starts_with(prefix); });
    return {static_cast<std::size_t>(begin - tensors.begin()),
            static_cast<std::size_t>(end - tensors.begin())};
  }
  std::optional<std::size_t> find(std::string_view name) const {
    const std::size_t at = range(name).first;
    if (at < tensors.size() && tensors[at].entry.name == name) return at;
    return std::nullopt;
  }
  /// Numbers of the model that an entry stands for: none where it is what an int8 tensor "X" or a
  /// packed "X_packed" needs beside it ("X_scale", ...), eight a word where it is packed.
  std::int64_t parameters(const safetensors::Entry& entry) const {
    constexpr std::string_view kPacked = "_packed";
    for (const std::string_view suffix : {"_scale", "_zero_point", "_shape"}) {
      if (!entry.name.ends_with(suffix)) continue;
      const std::string base = entry.name.substr(0, entry.name.size() - suffix.size());
      const auto at = find(base);
      if ((at && tensors[*at].entry.type == DType::i8) || find(base + std::string(kPacked)))
        return 0;
    }
    const bool packed = entry.name.ends_with(kPacked) && entry.type == DType::i32;
    return packed ? 8 * entry.numel() : entry.numel();
  }
};

namespace {

/// A view of the mapped bytes; a copy where they are not aligned for the type.
Tensor tensor_of(const safetensors::Entry& entry, const OpenFile& file, const std::string& where) {
  if (!entry.type) {
    throw UnsupportedError(concat(where, ": numbers of type ", entry.dtype,
                                  " are not supported; F32, F16, BF16, I8, U8, I32 and I64 are"));
  }
  if (entry.shape.size() > Shape::kMaxRank) {
    throw UnsupportedError(concat(where, ": ", entry.shape.size(), " dimensions; at most ",
                                  Shape::kMaxRank, " are supported"));
  }
  const Shape shape{std::span<const std::int64_t>(entry.shape)};
  const std::byte* data = file.mapped->bytes().data() + entry.begin;
  if (reinterpret_cast<std::uintptr_t>(data) % size_of(*entry.type) == 0)
    return Tensor::view(data, *entry.type, shape, file.mapped);
  Tensor copy = Tensor::empty(shape, *entry.type);
  std::memcpy(copy.raw(), data, entry.end - entry.begin);
  return copy;
}

/// Multiplies each row of an int8 tensor by its scale, or each column by its own.
Tensor multiply_out(const Tensor& weight, const Tensor& scales, bool by_columns) {
  Tensor result = weight.to_f32();
  const std::int64_t rows = weight.dim(0), width = rows ? weight.numel() / rows : 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = result.data() + r * width;
    const float* scale = scales.data() + (by_columns ? 0 : r);
    if (by_columns) {
      for (std::int64_t i = 0; i < width; ++i) row[i] *= scale[i];
    } else {
      const float one = *scale;
      for (std::int64_t i = 0; i < width; ++i) row[i] *= one;
    }
  }
  return result;
}

}  // namespace

Weights Weights::open(const std::filesystem::path& path) {
  Weights w;
  w.store_ = std::make_shared<Store>();
  Store& store = *w.store_;
  store.origin = path.string();
  store.files = open_checkpoint_files(path);
  for (OpenFile& file : store.files) {
    for (safetensors::Entry& entry : file.entries)
      store.tensors.push_back({std::move(entry), &file, {}});
    file.entries.clear();
  }
  if (const auto* twice = store.sort()) {
    throw FormatError(concat(store.origin, ": tensor \"", twice->entry.name,
                             "\" is in two files: ", twice->file->path.filename().string(), " and ",
                             std::next(twice)->file->path.filename().string()));
  }
  store.forget_what_was_read();
  return w;
}

Weights Weights::of(const std::vector<NamedTensor>& tensors) {
  Weights w;
  w.precision_ = Precision::in_place;
  w.store_ = std::make_shared<Store>();
  Store& store = *w.store_;
  store.origin = "parameters";
  for (const auto& [name, tensor] : tensors) {
    safetensors::Entry entry;
    entry.name = name;
    entry.dtype = name_of(tensor.dtype());
    entry.type = tensor.dtype();
    for (int i = 0; i < tensor.rank(); ++i) entry.shape.push_back(tensor.dim(i));
    entry.end = tensor.nbytes();
    store.tensors.push_back({std::move(entry), nullptr, tensor});
  }
  if (const auto* twice = store.sort())
    throw ArgumentError(concat("two parameters are named \"", twice->entry.name, "\""));
  store.forget_what_was_read();
  return w;
}

Weights Weights::made_by(Maker maker) {
  Weights w = of({});
  w.store_->origin = "new parameters";
  w.store_->maker = std::move(maker);
  return w;
}

Weights Weights::at(std::string_view scope) const {
  Weights w = *this;
  w.prefix_ += std::string(scope) + ".";
  return w;
}

Weights Weights::at(std::int64_t index) const { return at(std::to_string(index)); }

Weights Weights::with(CacheNumbers numbers) const {
  Weights w = *this;
  w.cache_numbers_ = numbers;
  return w;
}

Weights Weights::with(Precision precision) const {
  Weights w = *this;
  w.precision_ = precision;
  return w;
}

bool Weights::has(std::string_view name) const {
  const std::string full = prefix_ + std::string(name);
  return store_->maker ? store_->maker->has(full) : store_->find(full).has_value();
}

Tensor Weights::get(std::string_view name) const {
  const auto at = store_->find(prefix_ + std::string(name));
  if (!at) throw FormatError(concat(where(name), ": the checkpoint has no such tensor"));
  const auto& [entry, file, in_memory] = store_->tensors[*at];
  if (entry.type == DType::i8 && store_->find(entry.name + "_zero_point")) {
    throw UnsupportedError(concat(where(name),
                                  ": int8 weights with zero points are not supported, "
                                  "only symmetric ones with scales"));
  }
  Tensor tensor = file ? tensor_of(entry, *file, where(name)) : in_memory;
  store_->read[*at].store(true, std::memory_order_relaxed);
  return tensor;
}

Tensor Weights::get(std::string_view name, const Shape& shape) const {
  if (store_->maker) return store_->maker->make(prefix_ + std::string(name), shape);
  Tensor tensor = get(name);
  if (tensor.shape() != shape) {
    throw ShapeError(
        concat(where(name), ": expected shape ", shape.str(), ", found ", tensor.shape().str()));
  }
  return tensor;
}

Tensor Weights::get_f32(std::string_view name, const Shape& shape) const {
  const Tensor stored = get(name, shape);
  if (stored.dtype() != DType::i8) return stored.to_f32();
  const std::string scale = std::string(name) + "_scale";
  if (!has(scale) || stored.rank() == 0) {
    throw FormatError(concat(where(name), ": an int8 tensor needs its scales in \"", scale, "\""));
  }
  const bool by_columns =
      stored.rank() == 2 && get(scale).shape() == Shape{1, stored.dim(1)} && stored.dim(0) > 1;
  return multiply_out(stored, (by_columns ? get(scale) : get(scale, {stored.dim(0), 1})).to_f32(),
                      by_columns);
}

void Weights::ignore(std::string_view prefix) const {
  const auto [begin, end] = store_->range(prefix_ + std::string(prefix));
  for (std::size_t i = begin; i < end; ++i) store_->read[i].store(true, std::memory_order_relaxed);
}

void Weights::note_matrix(std::string_view name, Precision precision, bool inputs_first) const {
  if (const auto at = store_->find(prefix_ + std::string(name))) {
    store_->precision[*at].store(precision, std::memory_order_relaxed);
    store_->inputs_first[*at].store(inputs_first, std::memory_order_relaxed);
  }
}

Precision Weights::matrix_precision(std::string_view name) const {
  const auto at = store_->find(prefix_ + std::string(name));
  return at ? store_->precision[*at].load(std::memory_order_relaxed) : Precision::as_stored;
}

bool Weights::inputs_first(std::string_view name) const {
  const auto at = store_->find(prefix_ + std::string(name));
  return at && store_->inputs_first[*at].load(std::memory_order_relaxed);
}

std::vector<std::string> Weights::leftovers() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < store_->tensors.size(); ++i) {
    if (!store_->read[i].load(std::memory_order_relaxed))
      names.push_back(store_->tensors[i].entry.name);
  }
  return names;
}

std::vector<std::string> Weights::names() const {
  const auto [begin, end] = store_->range(prefix_);
  std::vector<std::string> names;
  for (std::size_t i = begin; i < end; ++i)
    names.push_back(store_->tensors[i].entry.name.substr(prefix_.size()));
  return names;
}

std::int64_t Weights::parameters() const {
  const auto [begin, end] = store_->range(prefix_);
  std::int64_t count = 0;
  for (std::size_t i = begin; i < end; ++i) {
    count += store_->parameters(store_->tensors[i].entry);
  }
  return count;
}

std::int64_t Weights::bytes() const {
  const auto [begin, end] = store_->range(prefix_);
  std::int64_t count = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const safetensors::Entry& entry = store_->tensors[i].entry;
    count += static_cast<std::int64_t>(entry.end - entry.begin);
  }
  return count;
}

void Weights::release_pages() const {
  for (const OpenFile& file : store_->files) file.mapped->release_pages();
}

std::string Weights::where(std::string_view name) const {
  const std::string full = prefix_ + std::string(name);
  const auto at = store_->find(full);
  const OpenFile* from = at ? store_->tensors[*at].file : nullptr;
  const std::string file = from ? from->path.string() : store_->origin;
  std::string_view place = full;
  if (place.ends_with('.')) place.remove_suffix(1);
  return place.empty() ? file : concat(file, ": ", place);
}

}  // namespace tessera
