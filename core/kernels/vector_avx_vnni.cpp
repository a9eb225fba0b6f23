// Compiled as vector_avx2.cpp is, with -mavxvnni.
#if defined(__x86_64__)
#define TESSERA_VECTOR_BYTES 32
#define TESSERA_TILE_ROWS 6
#define TESSERA_KERNELS_NAME kAvxVnniKernels
#define TESSERA_KERNELS_LABEL "avx_vnni"
#include "core/kernels/vector_table.h"
#endif
