#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/storage.h"

namespace tessera {

enum class DType : std::uint8_t { f32, f16, bf16, i8, u8, i32, i64 };

/// Bytes of one element.
std::size_t size_of(DType type);
/// "F32", "BF16", ... as safetensors spells it.
const char* name_of(DType type);

/// Lengths of up to six dimensions, held inline (no heap).
class Shape {
 public:
  static constexpr int kMaxRank = 6;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);
  explicit Shape(std::span<const std::int64_t> dims);

  int rank() const { return rank_; }
  /// Length of dimension i; negative i counts from the end.
  std::int64_t operator[](int i) const {
    return dims_[static_cast<std::size_t>(i < 0 ? i + rank_ : i)];
  }
  void set(int i, std::int64_t n) { dims_[static_cast<std::size_t>(i < 0 ? i + rank_ : i)] = n; }
  /// Product of all lengths (1 for rank 0).
  std::int64_t numel() const;
  bool operator==(const Shape& other) const;
  /// "[197, 192]"
  std::string str() const;

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// A typed, strided view of shared storage (heap, a Context's buffer pool, or a mapped file).
/// Copying a Tensor copies the view, not the numbers; `clone()` copies the numbers. A
/// default-constructed Tensor is empty (`!t`).
class Tensor {
 public:
  Tensor() = default;

  /// Uninitialised, contiguous, 64-byte aligned.
  static Tensor empty(const Shape& shape, DType type = DType::f32);
  static Tensor zeros(const Shape& shape, DType type = DType::f32);
  /// Uninitialised, from a pool that takes the block back when the last view is gone.
  static Tensor pooled(const std::shared_ptr<BufferPool>& pool, const Shape& shape, DType type);
  /// A copy of `values`, which must have shape.numel() elements.
  static Tensor from(std::span<const float> values, const Shape& shape);
  /// A view of foreign memory kept alive by `owner` (may be null for memory that outlives the
  /// tensor).
  static Tensor view(const void* data, DType type, const Shape& shape,
                     std::shared_ptr<const void> owner);

  explicit operator bool() const { return data_ != nullptr; }
  DType dtype() const { return type_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t dim(int i) const { return shape_[i]; }
  std::int64_t numel() const { return shape_.numel(); }
  /// Elements between neighbours along dimension i.
  std::int64_t stride(int i) const { return strides_[i]; }
  std::size_t nbytes() const { return static_cast<std::size_t>(numel()) * size_of(type_); }
  bool is_contiguous() const;

  /// First element. T must match dtype (std::uint16_t for f16 and bf16); asserted.
  template <class T = float>
  T* data() {
    check_type(sizeof(T));
    return static_cast<T*>(data_);
  }
  template <class T = float>
  const T* data() const {
    check_type(sizeof(T));
    return static_cast<const T*>(data_);
  }
  const void* raw() const { return data_; }
  void* raw() { return data_; }
  /// Whether no other tensor shares this one's memory.
  bool unique() const { return storage_.unique(); }
  /// What the memory behind this tensor is known by (the same for all views of it), and its bytes
  /// (0: foreign memory).
  const void* memory() const { return storage_.data(); }
  std::size_t memory_bytes() const { return storage_.bytes(); }
  /// The view of another tensor's memory that this one is of its own.
  Tensor view_of(const Tensor& other) const;

  /// Views. Rows [begin, end) of dimension 0; one index of dimension 0; another shape over
  /// contiguous numbers.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  Tensor operator[](std::int64_t i) const;
  Tensor reshape(const Shape& shape) const;
  /// Columns [begin, end) of the last dimension; not contiguous.
  Tensor columns(std::int64_t begin, std::int64_t end) const;
  /// `count` rows of `width` numbers of a contiguous tensor, each beginning `step` numbers after
  /// the one before; they may overlap.
  Tensor windows(std::int64_t count, std::int64_t width, std::int64_t step) const;

  /// Deep copy, contiguous.
  Tensor clone() const;
  /// This tensor as contiguous f32: itself where it is that already, else a converted copy (f16,
  /// bf16, i8, u8, i32, i64).
  Tensor to_f32() const;
  /// The numbers in reading order, converted to float.
  std::vector<float> to_vector() const;

 private:
  void check_type(std::size_t element) const;
  void* data_ = nullptr;
  DType type_ = DType::f32;
  Shape shape_, strides_;
  Storage storage_;
};

/// Half and bfloat16 to float and back (round to nearest even).
float f16_to_f32(std::uint16_t h);
float bf16_to_f32(std::uint16_t b);
std::uint16_t f32_to_f16(float f);
std::uint16_t f32_to_bf16(float f);

}  // namespace tessera
