#include "train/op_gradients.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/kernels/dropout.h"
#include "core/kernels/matmul.h"
#include "core/kernels/product.h"
#include "core/kernels/reference.h"
#include "core/kernels/vector.h"
#include "core/loss.h"
#include "train/pieces.h"

namespace tessera::train {
namespace {

const kernels::TrainingKernels& kernels_of_training() { return kernels::vector_kernels().training; }

/// c (= or +=) a b
void product_into(Context& ctx, const Gradients::Target& to, const kernels::MatrixView& a,
                  const kernels::MatrixView& b, std::int64_t k) {
  kernels::product(ctx, a, b, k, !to.fresh, to.gradient);
}

/// input(i)'s gradient += dy, as it is given or a part of it
void add_given(const Backward& b, std::size_t i, const Tensor& dy) {
  for_rows(b.ctx, b.sum(i), [&](std::int64_t row, std::int64_t width, float* dx) {
    kernels_of_training().add_scaled(row_of(dy, row), 1.0f, width, dx);
  });
}

/// to [N] += sums over the rows of x [M, N]: first those of pieces of the rows, which are read as
/// they lie.
void add_column_sums(Context& ctx, const Tensor& x, Tensor to) {
  const std::int64_t width = x.dim(1);
  const auto add_row = [&](const Tensor& from, std::int64_t i, float* sums) {
    kernels_of_training().add_scaled(row_of(from, i), 1.0f, width, sums);
  };
  Tensor sums = ctx.empty({(x.dim(0) + kRowsPerPiece - 1) / kRowsPerPiece, width});
  in_pieces(ctx, x.dim(0), kRowsPerPiece, [&](std::int64_t begin, std::int64_t end) {
    float* own = row_of(sums, begin / kRowsPerPiece);
    std::fill_n(own, width, 0.0f);
    for (std::int64_t i = begin; i < end; ++i) add_row(x, i, own);
  });
  for (std::int64_t i = 0; i < sums.dim(0); ++i) add_row(sums, i, to.data());
}

/// Calls work(row of x, row of dy, row of dx, sums of weight gradients) for all rows; each piece of
/// rows has sums of its own, which are added up in order.
template <class Work>
void norm_gradient(const Backward& b, std::int64_t parameters, Work work) {
  const Tensor &x = b.input(0), dy = b.dy;
  Tensor dx = b.wants(0) ? b.sum(0) : Tensor();
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  const std::int64_t pieces = (rows + kRowsPerPiece - 1) / kRowsPerPiece;
  Tensor sums = b.ctx.empty({pieces, parameters * width});
  in_pieces(b.ctx, rows, kRowsPerPiece, [&](std::int64_t begin, std::int64_t end) {
    float* own = sums.data() + begin / kRowsPerPiece * parameters * width;
    std::fill_n(own, parameters * width, 0.0f);
    Tensor unwanted = dx ? Tensor() : b.ctx.empty({width});
    for (std::int64_t i = begin; i < end; ++i) {
      work(x.data() + i * x.stride(0), dy.data() + i * dy.stride(0),
           dx ? dx.data() + i * dx.stride(0) : unwanted.data(), own);
    }
  });
  for (std::int64_t p = 0; p < parameters; ++p) {
    if (!b.wants(static_cast<std::size_t>(p + 1))) continue;
    add_column_sums(b.ctx, sums.columns(p * width, (p + 1) * width),
                    b.sum(static_cast<std::size_t>(p + 1)));
  }
}

}  // namespace

void pass_on(const Backward& b, std::size_t i) {
  if (!b.wants(i)) return;
  if (b.dy.shape() == b.input(i).shape() && b.gradients.hand_over(b.r.output, b.input(i))) return;
  add_given(b, i, b.dy);
}

// y = x W^T + bias + residual:  dW = dy^T x;  dx = dy W
void linear_gradient(const Backward& b) {
  const Tensor &x = b.input(0), &weight = b.input(1), &dy = b.dy;
  const kernels::MatrixView rows{x.data(), x.stride(0), false},
      turned_rows{x.data(), x.stride(0), true}, given{dy.data(), dy.stride(0), false},
      turned_given{dy.data(), dy.stride(0), true};
  if (b.wants(1)) {
    if (b.r.inputs_first) {
      product_into(b.ctx, b.target(1), turned_rows, given, x.dim(0));
    } else {
      product_into(b.ctx, b.target(1), turned_given, rows, x.dim(0));
    }
  }
  if (b.wants(2)) add_column_sums(b.ctx, dy, b.sum(2));
  if (b.wants(0)) {
    product_into(b.ctx, b.target(0), given, {weight.data(), weight.stride(0), b.r.inputs_first},
                 dy.dim(1));
  }
  pass_on(b, 3);
}

void layer_norm_gradient(const Backward& b) {
  const Tensor& weight = b.input(1);
  const std::int64_t width = weight.dim(0);
  norm_gradient(b, 2, [&](const float* x, const float* dy, float* dx, float* sums) {
    kernels_of_training().layer_norm_gradient(x, weight.data(), dy, b.r.number, width, dx, sums,
                                              sums + width);
  });
}

void rms_norm_gradient(const Backward& b) {
  const Tensor& weight = b.input(1);
  norm_gradient(b, 1, [&](const float* x, const float* dy, float* dx, float* sums) {
    kernels_of_training().rms_norm_gradient(x, weight.data(), dy, b.r.number, weight.dim(0), dx,
                                            sums);
  });
}

void gather_rows_gradient(const Backward& b) {
  constexpr std::int64_t kColumns = 64;  // a task has all rows of its columns, in order
  Tensor table = b.sum(0);
  in_pieces(b.ctx, table.dim(1), kColumns, [&](std::int64_t begin, std::int64_t end) {
    for (std::size_t i = 0; i < b.r.ids.size(); ++i) {
      kernels_of_training().add_scaled(row_of(b.dy, static_cast<std::int64_t>(i)) + begin, 1.0f,
                                       end - begin,
                                       table.data() + b.r.ids[i] * table.stride(0) + begin);
    }
  });
}

void activate_gradient(const Backward& b) {
  const Activation activation = b.r.activation;
  const bool in_place = b.gradients.hand_over(b.r.output, b.input(0));  // dy becomes dx
  const Gradients::Target to = in_place ? Gradients::Target{b.dy, true} : b.target(0);
  for_rows(b.ctx, to.gradient, [&](std::int64_t row, std::int64_t width, float* dx) {
    const float *x = row_of(b.input(0), row), *dy = row_of(b.dy, row);
    if (kernels::fuses(activation)) {
      kernels_of_training().activate_gradient(activation, x, dy, to.fresh ? nullptr : dx, width,
                                              dx);
      return;
    }
    for (std::int64_t i = 0; i < width; ++i) {
      const float d = dy[i] * kernels::reference::slope(activation, x[i]);
      dx[i] = to.fresh ? d : dx[i] + d;
    }
  });
}

void add_gradient(const Backward& b) {
  const bool both = b.wants(0) && b.wants(1);
  if (both) add_given(b, 1, b.dy);
  pass_on(b, both || b.wants(0) ? 0 : 1);
}

void multiply_gradient(const Backward& b) {
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    if (!b.wants(i)) continue;
    for_rows(b.ctx, b.sum(i), [&](std::int64_t row, std::int64_t width, float* dx) {
      kernels_of_training().add_product(row_of(b.dy, row), row_of(b.input(1 - i), row), width, dx);
    });
  }
}

// A turn is undone by the opposite one.
void rope_gradient(const Backward& b) {
  const Tensor& angles = b.input(1);
  const std::int64_t head = angles.dim(1), half = head / 2;
  for_rows(b.ctx, b.sum(0), [&](std::int64_t row, std::int64_t width, float* dx) {
    const float *cos = row_of(angles, row), *dy = row_of(b.dy, row);
    Tensor scratch = b.ctx.empty({half + head});
    float *back = scratch.data(), *turned = back + half;
    for (std::int64_t i = 0; i < half; ++i) back[i] = -cos[half + i];
    for (std::int64_t c = 0; c < width; c += head) {
      kernels::vector_kernels().rotate(dy + c, cos, back, half, turned);
      kernels_of_training().add_scaled(turned, 1.0f, head, dx + c);
    }
  });
}

namespace {

/// Attention of one of several items, whose rows lie one after the other.
struct AttentionPart {
  Tensor q, k, v, lse, out, dout, dq, dk, dv;
  std::int64_t place;  // of its first weight among those of all
};

std::vector<AttentionPart> parts_of_attention(const Backward& b) {
  // What is not wanted is found all the same, and thrown away.
  const auto place = [&](std::size_t i) {
    return b.wants(i) ? b.sum(i) : Tensor::zeros(b.input(i).shape());
  };
  const Tensor dq = place(0), dk = place(1), dv = place(2);
  const std::vector<std::int64_t>& begin = b.r.begin;
  if (begin.empty()) {
    return {{b.input(0), b.input(1), b.input(2), b.input(3), b.r.output, b.dy, dq, dk, dv, 0}};
  }
  std::vector<AttentionPart> parts;
  std::int64_t weights = 0;
  for (std::size_t i = 0; i + 1 < begin.size(); ++i) {
    const auto rows = [&](const Tensor& t) { return t.slice(begin[i], begin[i + 1]); };
    parts.push_back({rows(b.input(0)), rows(b.input(1)), rows(b.input(2)), rows(b.input(3)),
                     rows(b.r.output), rows(b.dy), rows(dq), rows(dk), rows(dv), weights});
    weights += b.r.attention.heads * parts.back().q.dim(0) * parts.back().k.dim(0);
  }
  return parts;
}

}  // namespace

void attention_gradient(const Backward& b) {
  const AttentionOptions& o = b.r.attention;
  const std::int64_t group = o.heads / o.kv_heads, width = b.input(0).dim(1) / o.heads;
  const bool rounded = b.ctx.rounded_products && kernels::vector_kernels().half.native;
  const auto gradient = rounded ? kernels_of_training().rounded_attention_gradient
                                : kernels_of_training().attention_gradient;
  std::vector<AttentionPart> parts = parts_of_attention(b);
  b.ctx.parallel_for(std::ssize(parts) * o.kv_heads, [&](std::int64_t task) {
    AttentionPart& p = parts[static_cast<std::size_t>(task / o.kv_heads)];
    const std::int64_t g = task % o.kv_heads, weights = p.q.dim(0) * p.k.dim(0);
    Tensor scratch = b.ctx.empty({kernels::attention_gradient_scratch(p.k.dim(0), width)});
    for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
      gradient({.q = p.q.data() + h * width,
                .k = p.k.data() + g * width,
                .v = p.v.data() + g * width,
                .out = p.out.data() + h * width,
                .dout = p.dout.data() + h * width,
                .ldq = p.q.stride(0),
                .ldk = p.k.stride(0),
                .ldv = p.v.stride(0),
                .ldo = p.out.stride(0),
                .lddo = p.dout.stride(0),
                .lse = p.lse.data() + h,
                .ld_lse = p.lse.stride(0),
                .dq = p.dq.data() + h * width,
                .dk = p.dk.data() + g * width,
                .dv = p.dv.data() + g * width,
                .lddq = p.dq.stride(0),
                .lddk = p.dk.stride(0),
                .lddv = p.dv.stride(0),
                .queries = p.q.dim(0),
                .keys = p.k.dim(0),
                .width = width,
                .causal = o.causal,
                .scale = o.scale,
                .scratch = scratch.data(),
                .dropped = kernels::dropout_of(o.stream, o.dropout, p.place + h * weights)});
    }
  });
}

void windows_gradient(const Backward& b) {
  const WindowOptions& w = b.r.window;
  const std::int64_t channels = b.input(0).dim(1), count = b.dy.dim(0);
  const std::int64_t channel_step = w.channels_first ? w.kernel : 1;
  for_rows(b.ctx, b.sum(0), [&](std::int64_t frame, std::int64_t, float* dx) {
    for (std::int64_t j = 0; j < w.kernel; ++j) {
      const std::int64_t from = frame + w.padding - j, t = from / w.stride;
      if (from < 0 || from % w.stride != 0 || t >= count) continue;
      const float* dy = row_of(b.dy, t) + j * (w.channels_first ? 1 : channels);
      for (std::int64_t c = 0; c < channels; ++c) dx[c] += dy[c * channel_step];
    }
  });
}

void patches_gradient(const Backward& b) {
  const Tensor& x = b.input(0);
  const std::int64_t patch = b.r.window.kernel, wide = x.dim(2) / patch;
  Tensor dx = b.sum(0);
  in_pieces(b.ctx, b.dy.dim(0), kRowsPerPiece, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* from = row_of(b.dy, i);
      float* corner = dx.data() + (i / wide) * patch * x.dim(2) + (i % wide) * patch;
      for (std::int64_t c = 0; c < x.dim(0); ++c) {
        for (std::int64_t row = 0; row < patch; ++row, from += patch) {
          kernels_of_training().add_scaled(from, 1.0f, patch,
                                           corner + (c * x.dim(1) + row) * x.dim(2));
        }
      }
    }
  });
}

void join_rows_gradient(const Backward& b) {
  std::int64_t at = 0;
  for (std::size_t i = 0; i < b.r.inputs.size(); ++i) {
    const std::int64_t end = at + b.input(i).dim(0);
    if (b.wants(i)) add_given(b, i, b.dy.slice(at, end));
    at = end;
  }
}

void dropout_gradient(const Backward& b) {
  const kernels::Dropout dropped = kernels::dropout_of(b.r.stream, b.r.number, 0);
  for_rows(b.ctx, b.sum(0), [&](std::int64_t row, std::int64_t width, float* dx) {
    const float* dy = row_of(b.dy, row);
    for (std::int64_t i = 0; i < width; ++i)
      dx[i] += dy[i] * kernels::factor_at(dropped, row * width + i);
  });
}

void cross_entropy_gradient(const Backward& b) {
  const Tensor &logits = b.input(0), &totals = b.input(1), &weights = b.input(2);
  const Gradients::Target to = b.target(0);
  for_rows(b.ctx, to.gradient, [&](std::int64_t row, std::int64_t vocab, float* dx) {
    logits_gradient({.logits = row_of(logits, row),
                     .vocab = vocab,
                     .target = b.r.ids[static_cast<std::size_t>(row)],
                     .smoothing = b.r.number,
                     .total = totals.data()[row],
                     .factor = b.dy.data()[0] * (weights ? weights.data()[row] : 1)},
                    to.fresh ? nullptr : dx, dx);
  });
}

// Often this is all there is: then the known numbers themselves become the gradient.
void known_gradient(const Backward& b) {
  const Tensor& known = b.input(1);
  const bool taken = b.gradients.take(b.input(0), known);
  const float factor = b.dy.data()[0];
  if (taken && factor == 1) return;
  for_rows(b.ctx, b.sum(0), [&](std::int64_t row, std::int64_t width, float* dx) {
    if (!taken) return kernels_of_training().add_scaled(row_of(known, row), factor, width, dx);
    for (std::int64_t i = 0; i < width; ++i) dx[i] *= factor;
  });
}

}  // namespace tessera::train
