#include "core/tape.h"

#include <algorithm>
#include <utility>

namespace tessera {
namespace {

/// A well-mixed number of its argument (Steele, Lea and Flood 2014).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

}  // namespace

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

std::uint64_t Tape::next_stream() { return mix(mix(seed_) + streams_++); }

bool kept(std::uint64_t stream, std::int64_t i, float p) {
  constexpr double kUnit = 1.0 / 9007199254740992.0;  // 2^-53
  return static_cast<double>(mix(stream + static_cast<std::uint64_t>(i)) >> 11) * kUnit >=
         static_cast<double>(p);
}

}  // namespace tessera
