#include "core/tensor.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "core/error.h"
#include "core/kernels/convert.h"

namespace tessera {
namespace {

Shape row_major_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides.set(i, step);
    step *= shape[i];
  }
  return strides;
}

std::size_t bytes_for(const Shape& shape, DType type) {
  std::size_t bytes = size_of(type);
  for (int i = 0; i < shape.rank(); ++i) {
    const std::int64_t n = shape[i];
    if (n < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(n), &bytes)) {
      throw ShapeError(concat("a tensor of shape ", shape.str(), " can't be held in memory"));
    }
  }
  return bytes;
}

/// Calls visit(offset in elements) for the start of every run of contiguous elements; returns the
/// run's length.
template <class Visit>
std::int64_t for_each_run(const Shape& shape, const Shape& strides, Visit visit) {
  int outer = shape.rank();
  std::int64_t run = 1;
  while (outer > 0 && (strides[outer - 1] == run || shape[outer - 1] == 1)) run *= shape[--outer];
  std::array<std::int64_t, Shape::kMaxRank> at{};
  if (shape.numel() == 0) return run;
  for (;;) {
    std::int64_t offset = 0;
    for (int i = 0; i < outer; ++i) offset += at[static_cast<std::size_t>(i)] * strides[i];
    visit(offset);
    int i = outer - 1;
    while (i >= 0 && ++at[static_cast<std::size_t>(i)] == shape[i])
      at[static_cast<std::size_t>(i--)] = 0;
    if (i < 0) return run;
  }
}

}  // namespace

std::size_t size_of(DType type) {
  switch (type) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::i8:
    case DType::u8:
      return 1;
    case DType::i64:
      return 8;
  }
  return 0;
}

const char* name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::i8:
      return "I8";
    case DType::u8:
      return "U8";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
  }
  return "?";
}

Shape::Shape(std::initializer_list<std::int64_t> dims)
    : Shape(std::span<const std::int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const std::int64_t> dims) {
  if (dims.size() > kMaxRank)
    throw ShapeError(concat("a tensor has at most ", kMaxRank, " dimensions"));
  for (const std::int64_t n : dims) dims_[static_cast<std::size_t>(rank_++)] = n;
}

std::int64_t Shape::numel() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && dims_ == other.dims_;
}

std::string Shape::str() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string((*this)[i]);
  return text + "]";
}

Tensor Tensor::empty(const Shape& shape, DType type) {
  Tensor t;
  t.storage_ = Storage::heap(bytes_for(shape, type));
  t.data_ = t.storage_.data();
  t.type_ = type;
  t.shape_ = shape;
  t.strides_ = row_major_strides(shape);
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType type) {
  Tensor t = empty(shape, type);
  std::memset(t.data_, 0, t.nbytes());
  return t;
}

Tensor Tensor::pooled(const std::shared_ptr<BufferPool>& pool, const Shape& shape, DType type) {
  Tensor t;
  t.storage_ = Storage::pooled(pool, bytes_for(shape, type));
  t.data_ = t.storage_.data();
  t.type_ = type;
  t.shape_ = shape;
  t.strides_ = row_major_strides(shape);
  return t;
}

Tensor Tensor::from(std::span<const float> values, const Shape& shape) {
  assert(static_cast<std::int64_t>(values.size()) == shape.numel());
  Tensor t = empty(shape);
  std::copy(values.begin(), values.end(), t.data());
  return t;
}

Tensor Tensor::view(const void* data, DType type, const Shape& shape,
                    std::shared_ptr<const void> owner) {
  Tensor t;
  t.storage_ = Storage::foreign(data, std::move(owner));
  t.data_ = t.storage_.data();
  t.type_ = type;
  t.shape_ = shape;
  t.strides_ = row_major_strides(shape);
  return t;
}

bool Tensor::is_contiguous() const {
  std::int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  assert(rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0]);
  Tensor t = *this;
  t.data_ =
      static_cast<char*>(data_) + static_cast<std::size_t>(begin * strides_[0]) * size_of(type_);
  t.shape_.set(0, end - begin);
  return t;
}

Tensor Tensor::operator[](std::int64_t i) const {
  Tensor t = slice(i, i + 1);
  std::array<std::int64_t, Shape::kMaxRank> dims{}, steps{};
  const auto rest = static_cast<std::size_t>(rank() - 1);
  for (int d = 1; d < rank(); ++d) {
    dims[static_cast<std::size_t>(d - 1)] = shape_[d];
    steps[static_cast<std::size_t>(d - 1)] = strides_[d];
  }
  t.shape_ = Shape(std::span<const std::int64_t>(dims.data(), rest));
  t.strides_ = Shape(std::span<const std::int64_t>(steps.data(), rest));
  return t;
}

Tensor Tensor::reshape(const Shape& shape) const {
  assert(is_contiguous() && shape.numel() == numel());
  Tensor t = *this;
  t.shape_ = shape;
  t.strides_ = row_major_strides(shape);
  return t;
}

Tensor Tensor::columns(std::int64_t begin, std::int64_t end) const {
  assert(rank() > 0 && 0 <= begin && begin <= end && end <= shape_[-1]);
  Tensor t = *this;
  t.data_ =
      static_cast<char*>(data_) + static_cast<std::size_t>(begin * strides_[-1]) * size_of(type_);
  t.shape_.set(-1, end - begin);
  return t;
}

Tensor Tensor::windows(std::int64_t count, std::int64_t width, std::int64_t step) const {
  assert(is_contiguous() && count > 0 && (count - 1) * step + width <= numel());
  Tensor t = *this;
  t.shape_ = {count, width};
  t.strides_ = {step, 1};
  return t;
}

Tensor Tensor::view_of(const Tensor& other) const {
  Tensor t = *this;
  const auto offset = static_cast<const char*>(data_) - static_cast<const char*>(memory());
  t.storage_ = other.storage_;
  t.data_ = static_cast<char*>(t.storage_.data()) + offset;
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, type_);
  const std::size_t element = size_of(type_);
  const std::int64_t run =
      is_contiguous() ? numel() : for_each_run(shape_, strides_, [](std::int64_t) {});
  char* to = static_cast<char*>(t.data_);
  for_each_run(shape_, strides_, [&](std::int64_t offset) {
    const std::size_t bytes = static_cast<std::size_t>(run) * element;
    std::memcpy(to, static_cast<const char*>(data_) + static_cast<std::size_t>(offset) * element,
                bytes);
    to += bytes;
  });
  return t;
}

Tensor Tensor::to_f32() const {
  if (type_ == DType::f32 && is_contiguous()) return *this;
  const Tensor source = is_contiguous() ? *this : clone();
  if (type_ == DType::f32) return source;
  Tensor t = empty(shape_);
  convert_to_f32(source.data_, type_, t.data(), numel());
  return t;
}

std::vector<float> Tensor::to_vector() const {
  const Tensor t = to_f32();
  return {t.data(), t.data() + t.numel()};
}

void Tensor::check_type([[maybe_unused]] std::size_t element) const {
  assert(element == size_of(type_));
}

}  // namespace tessera
