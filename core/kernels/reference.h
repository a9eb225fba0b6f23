#pragma once
#include <cstdint>

#include "core/activation.h"
#include "core/kernels/dropout.h"

// Scalar twins of the kernels: what the tests compare with. Written for clarity, in double where
// sums are long.
namespace tessera::kernels::reference {

/// One number through an activation function.
float activate(Activation activation, float x);
/// Its derivative there.
float slope(Activation activation, float x);

/// y [m, n] = act(x [m, k] * weight [n, k]^T + bias [n]) + residual [m, n]; bias and residual may
/// be null.
void linear(const float* x, const float* weight, const float* bias, const float* residual,
            Activation activation, std::int64_t m, std::int64_t n, std::int64_t k, float* y);
void layer_norm(const float* x, const float* weight, const float* bias, float eps,
                std::int64_t width, float* y);
void rms_norm(const float* x, const float* weight, float eps, std::int64_t width, float* y);

/// y [2*half]: the pairs (x[i], x[i + half]) turned, each by the angle whose cosine and sine are
/// given.
void rotate(const float* x, const float* cos, const float* sin, std::int64_t half, float* y);

/// q [queries, heads*width], k and v [keys, kv_heads*width] -> out [queries, heads*width]. The
/// stream of what is dropped begins at the first head's first row.
void attention(const float* q, const float* k, const float* v, std::int64_t queries,
               std::int64_t keys, std::int64_t heads, std::int64_t kv_heads, std::int64_t width,
               float scale, bool causal, float* out, const Dropout& dropped = {});

/// The same of one head in integers up to `most`, none of it causal: queries and keys less their
/// mean have a unit for each row, values less their mean one for each column; weights are rounded
/// to parts, `parts` of which are the largest in each kKeyBlock keys.
void attention_in_integers(const float* q, const float* k, const float* v, std::int64_t queries,
                           std::int64_t keys, std::int64_t width, float scale, double most,
                           double parts, float* out);

/// x [frames, in], weight [out, in, kernel], bias [out] -> y [(frames + 2*padding - kernel)/stride
/// + 1, out].
void conv1d(const float* x, const float* weight, const float* bias, std::int64_t frames,
            std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
            std::int64_t padding, float* y);

}  // namespace tessera::kernels::reference
