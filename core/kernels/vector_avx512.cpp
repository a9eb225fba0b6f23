// Compiled with -mavx512f and its companions.
#if defined(__x86_64__)
#define TESSERA_VECTOR_BYTES 64
#define TESSERA_TILE_ROWS 12
#define TESSERA_KERNELS_NAME kAvx512Kernels
#define TESSERA_KERNELS_LABEL "avx512"
#include "core/kernels/vector_table.h"
#endif
