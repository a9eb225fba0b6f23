// Compiled as vector_avx512.cpp is, with -mavx512vnni and -mavx512bf16.
#if defined(__x86_64__)
#define TESSERA_VECTOR_BYTES 64
#define TESSERA_TILE_ROWS 12
#define TESSERA_KERNELS_NAME kAvx512Bf16Kernels
#define TESSERA_KERNELS_LABEL "avx512_bf16"
#include "core/kernels/vector_table.h"
#endif
