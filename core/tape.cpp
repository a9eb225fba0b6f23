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

}  // namespace tessera
