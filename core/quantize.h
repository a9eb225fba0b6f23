#pragma once
#include <string>
#include <vector>

#include "core/context.h"
#include "core/gptq.h"
#include "core/weights.h"

namespace tessera {

/// A matrix [out, in] in integers: with 8 bits, numbers[i, c] * scales[i, 0]; with 4,
/// (numbers[i, c] - zeros[i, g]) * scales[i, g], where groups g of 32 columns share a scale.
struct RoundedMatrix {
  int bits = 8;
  Tensor numbers;  ///< [out, in], i8, or with 4 bits u8 of 0 to 15
  Tensor scales;   ///< [out, groups], f32; with 4 bits exact in bf16
  Tensor zeros;    ///< [out, groups], u8; only with 4 bits

  Tensor multiplied_out() const;  ///< [out, in], f32
};

/// A matrix of floats, named "<layer>.weight", as Linear would round it to 8 or 4 bits: each number
/// to the nearest. Throws FormatError for numbers that are not finite.
RoundedMatrix rounded(const std::string& name, const Tensor& weight, int bits);
/// The same, but so that what is lost changes the products with the layer's inputs little. `gptq`:
/// made with columns_per_scale(bits). Of 8 bits, the scales are those of rounded() alone.
RoundedMatrix rounded(Context& ctx, const std::string& name, const Tensor& weight, int bits,
                      const Gptq& gptq);
/// Columns of a row that share a scale; 0: all.
std::int64_t columns_per_scale(int bits);

/// As compressed-tensors stores it with 8 bits (`weight` I8, `weight_scale`) or 4 (`weight_packed`,
/// `weight_scale`, `weight_zero_point`, `weight_shape`). `inputs_first`: with 8 bits as [in, out]
/// and [1, out], as what Linear::conv1d reads.
std::vector<NamedTensor> stored_form(const std::string& name, const RoundedMatrix& matrix,
                                     bool inputs_first = false);

}  // namespace tessera
