#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// The numbers that matrices are multiplied in: f32; bf16 weights and activations; int8 weights
/// (one scale an output row) or int4 weights (a scale and a zero point for every 32 numbers of a
/// row), both with activations rounded row by row. as_stored: what the checkpoint has, f32 for
/// floats of any kind. automatic: int8 for these in decoders and sound towers, whose answers it
/// was measured to keep (bench/NOTES.md), else as_stored. in_place: f32, nothing is packed or
/// copied, so that what changes in a tensor counts at once and gradients can be found (training).
enum class Precision : std::uint8_t { as_stored, f32, bf16, int8, int4, automatic, in_place };
/// That of encoders, which gain nothing from smaller numbers than int8, of output layers, on which
/// every token depends, and of what decoders make values of (bench/NOTES.md).
constexpr Precision int8_at_least(Precision p) {
  return p == Precision::int4 ? Precision::int8 : p;
}
/// That of image towers, classifiers and what makes vectors to be compared: as stored where nobody
/// said how, int8 at least.
constexpr Precision exact_if_automatic(Precision p) {
  return p == Precision::automatic ? Precision::as_stored : int8_at_least(p);
}

/// The numbers in which a decoder keeps keys and values. automatic: f32 beside exact products, bf16
/// beside rounded ones, and int8 for a memory (cross-attention) beside int8 and int4.
enum class CacheNumbers : std::uint8_t { automatic, f32, bf16, int8 };

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// A cursor over the named tensors of a checkpoint (safetensors: one file, or several with
/// model.safetensors.index.json). Copies are cheap and share the mapped files. Names are the
/// checkpoint's own:
///
///     w.at("layers").at(3).get("q_proj.weight", {out, in})      // reads "layers.3.q_proj.weight"
///
/// Tensors are views of the mapped file (no copy). Every header is checked against the file before
/// anything is used; FormatError names file, tensor and reason.
class Weights {
 public:
  /// A checkpoint directory, one .safetensors file, or an index file. Throws IoError, FormatError.
  static Weights open(const std::filesystem::path& path);
  /// Tensors in memory, shared with the layers that are made of them. Multiplied in place. Throws
  /// ArgumentError for a name given twice.
  static Weights of(const std::vector<NamedTensor>& tensors);

  /// Tensors made when a model asks for them, by full name and shape; `has` answers for optional
  /// ones. How a model that no file holds yet is given its first numbers. Multiplied in place.
  struct Maker {
    std::function<Tensor(const std::string& name, const Shape& shape)> make;
    std::function<bool(const std::string& name)> has;
  };
  static Weights made_by(Maker maker);

  /// The same tensors seen from "<scope>.".
  Weights at(std::string_view scope) const;
  Weights at(std::int64_t index) const;

  /// The same tensors, whose matrices are to be multiplied in `precision` (Linear packs them so).
  Weights with(Precision precision) const;
  Precision precision() const { return precision_; }
  /// The same tensors for a decoder that keeps keys and values so.
  Weights with(CacheNumbers numbers) const;
  CacheNumbers cache_numbers() const { return cache_numbers_; }

  bool has(std::string_view name) const;
  /// The tensor as stored. Throws FormatError where it is absent, ShapeError where the shape
  /// differs.
  Tensor get(std::string_view name, const Shape& shape) const;
  /// The tensor as stored, of any shape.
  Tensor get(std::string_view name) const;
  /// get(), widened to f32. A tensor of compressed-tensors' int-quantized form (`weight` I8 with
  /// `weight_scale` per output row, or per output column [1, out] of a matrix [in, out]) is
  /// multiplied out.
  Tensor get_f32(std::string_view name, const Shape& shape) const;

  /// Marks as read what a model knows it does not need ("embeddings.position_ids", tied heads,
  /// ...): every name that starts with `prefix`, seen from this cursor.
  void ignore(std::string_view prefix) const;
  /// Says that this tensor is a matrix of floats that was taken to be multiplied in `precision`;
  /// `inputs_first`: that it lies as [in, out].
  void note_matrix(std::string_view name, Precision precision, bool inputs_first = false) const;
  /// What was said of it; as_stored where nothing was.
  Precision matrix_precision(std::string_view name) const;
  /// Whether it was said to lie so.
  bool inputs_first(std::string_view name) const;
  /// Full names (of the whole checkpoint) of all tensors nobody has read.
  std::vector<std::string> leftovers() const;
  /// All names seen from this cursor, without the prefix, sorted.
  std::vector<std::string> names() const;
  /// Number of elements over all tensors seen from this cursor, scales excluded.
  std::int64_t parameters() const;
  /// Bytes of all tensors seen from this cursor.
  std::int64_t bytes() const;
  /// Tells the system that pages read so far are no longer needed (they are read again from the
  /// file on use).
  void release_pages() const;

  /// Its name in the whole checkpoint.
  std::string full_name(std::string_view name) const { return prefix_ + std::string(name); }
  /// "model.safetensors: layers.3" for messages.
  std::string where(std::string_view name = {}) const;

 private:
  struct Store;
  std::shared_ptr<Store> store_;
  std::string prefix_;
  Precision precision_ = Precision::f32;
  CacheNumbers cache_numbers_ = CacheNumbers::automatic;
};

/// The same tensors, whose matrices have 8 bits where others have 4.
inline Weights int8_at_least(const Weights& w) { return w.with(int8_at_least(w.precision())); }
inline Weights exact_if_automatic(const Weights& w) {
  return w.with(exact_if_automatic(w.precision()));
}

/// Writes tensors as one safetensors file: to a temporary name first, renamed when complete.
void save_safetensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors);

}  // namespace tessera
