// Compiled with -mavx2 -mfma.
#if defined(__x86_64__)
#define TESSERA_VECTOR_BYTES 32
#define TESSERA_TILE_ROWS 6
#define TESSERA_KERNELS_NAME kAvx2Kernels
#define TESSERA_KERNELS_LABEL "avx2"
#include "core/kernels/vector_table.h"
#endif
