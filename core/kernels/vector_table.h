// The kernels of one instruction set. The including file defines TESSERA_VECTOR_BYTES,
// TESSERA_TILE_ROWS, TESSERA_KERNELS_NAME and TESSERA_KERNELS_LABEL.
#include "core/kernels/attention_few_impl.h"
#include "core/kernels/attention_impl.h"
#include "core/kernels/attention_integer_impl.h"
#include "core/kernels/byte_attention_impl.h"
#include "core/kernels/finish_impl.h"
#include "core/kernels/integer_impl.h"
#include "core/kernels/nibbles_impl.h"
#include "core/kernels/product_impl.h"
#include "core/kernels/training_attention_impl.h"
#include "core/kernels/training_impl.h"
#include "core/kernels/vector_impl.h"

namespace tessera::kernels {

extern const VectorKernels TESSERA_KERNELS_NAME;
const VectorKernels TESSERA_KERNELS_NAME = {
    TESSERA_KERNELS_LABEL,
    kPanel,
    layer_norm,
    rms_norm,
    finish,
    add,
    multiply,
    largest,
    sum_exp,
    rotate,
    few_rows_panel,
    few_rows_dot,
    {sizeof(Exact::Number), Exact::kDepth, pack_head<Exact>, attention_block<Exact, false>,
     attention_block<Exact, true>, nullptr},
    {sizeof(Rounded::Number), Rounded::kDepth, pack_head<Rounded>, attention_block<Rounded, false>,
     attention_block<Rounded, true>, nullptr},
    {sizeof(InShorts::Number), InShorts::kDepth, pack_integers<InShorts>,
     integer_attention_block<InShorts>, nullptr, measure_head<InShorts>},
    {sizeof(InBytes::Number), InBytes::kDepth, pack_integers<InBytes>,
     integer_attention_block<InBytes>, nullptr, measure_head<InBytes>},
    TESSERA_VECTOR_BYTES >= 32,
    TESSERA_VECTOR_BYTES == 64 && kDepth == 4,
    attention_part,
    {bytes_of_block, write_byte_rows, read_byte_row, byte_scratch},
    {kHasBf16, kPanel, round_row, half_tile},
    {kPanel, kRows, kDepth, quantize_rows, kDepth == 4 ? quantize_fine : nullptr, sum_groups,
     kDepth == 4 ? nullptr : widen8, widen4, integer_tile, few_rows8, few_rows4, quantize4},
    {kRows,
     {1, pack_rows, pack_columns, product_tile<false>},
     {2, pack_row_pairs, pack_column_pairs, product_tile<true>},
     turn_columns<std::uint16_t>,
     activate,
     activate_gradient,
     layer_norm_gradient,
     rms_norm_gradient,
     attention_gradient<false>,
     attention_gradient<true>,
     row_log_sum_exp,
     softmax_gradient,
     add_scaled,
     add_product,
     sum_of_squares,
     adamw}};

}  // namespace tessera::kernels
