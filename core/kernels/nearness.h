#pragma once

namespace tessera::kernels {

/// How near to the function GELU is to be: where numbers are rounded to 8 bits anyway, an absolute
/// error of 1.2e-4 will do, of bf16 ones 2e-6.
enum class Nearness { exact, of_bf16, of_bytes };

}  // namespace tessera::kernels
