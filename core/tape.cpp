#include "core/tape.h"

#include <algorithm>
#include <utility>

#include "core/kernels/dropout.h"

namespace tessera {

void Tape::record(Record record) {
  if (std::ranges::none_of(record.inputs, [&](const Tensor& t) { return wants(t); })) return;
  made_.insert(record.output.memory());
  records_.push_back(std::move(record));
}

void Tape::clear() {
  records_.clear();
  made_.clear();
}

void Tape::set_seed(std::uint64_t seed) {
  seed_ = seed;
  streams_ = 0;
}

std::uint64_t Tape::next_stream() { return kernels::mixed(kernels::mixed(seed_) + streams_++); }

double Tape::kept_bytes() const {
  double kept = 0, again = 0;
  std::unordered_set<const void*> seen;
  for (const Record& r : records_) {
    if (seen.insert(r.output.memory()).second) kept += static_cast<double>(r.output.nbytes());
    if (r.op == Op::segment) again = std::max(again, static_cast<double>(r.number));
  }
  return kept + again;
}

Tensor checkpointed(Context& ctx, const Tensor& x,
                    std::function<Tensor(Context&, const Tensor& x)> run) {
  if (!ctx.tape || !ctx.tape->keeps_inputs_only) return run(ctx, x);
  Tape &tape = *ctx.tape, inner(tape, tape.streams());
  Record segment{.op = Op::segment, .inputs = {x}, .stream = tape.streams()};
  {
    const TapeScope recording(ctx, &inner);  // the kernels of training, as when it is run again
    segment.output = run(ctx, x);
  }
  tape.set_streams(inner.streams());
  const Tensor y = segment.output;
  if (tape.wants(y) || !inner.wants(y)) return y;  // it comes from elsewhere, or is frozen
  for (const Record& r : inner.records()) {
    for (const Tensor& t : r.inputs)
      if (tape.wants(t) && t.memory() != x.memory()) segment.inputs.push_back(t);
  }
  segment.number = static_cast<float>(inner.kept_bytes());
  segment.again = std::move(run);
  tape.record(std::move(segment));
  return y;
}

}  // namespace tessera
