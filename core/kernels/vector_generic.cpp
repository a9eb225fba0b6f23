// For any machine.
#define TESSERA_VECTOR_BYTES 16
#define TESSERA_TILE_ROWS 4
#define TESSERA_KERNELS_NAME kGenericKernels
#define TESSERA_KERNELS_LABEL "generic"
#include "core/kernels/vector_table.h"
