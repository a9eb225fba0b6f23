#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/error.h"

namespace tessera {

/// The family that reads this config's `model_type`, or null.
template <class Family>
const Family* find_family(const std::vector<Family>& families, const std::string& model_type) {
  const auto reads = [&](const Family& f) {
    return std::ranges::count(f.model_types, model_type) > 0;
  };
  const auto found = std::ranges::find_if(families, reads);
  return found == families.end() ? nullptr : &*found;
}

/// The answer would not outlive the list.
template <class Family>
const Family* find_family(std::vector<Family>&& families, const std::string& model_type) = delete;

/// The same; where there is none, an UnsupportedError that names the known ones.
template <class Family>
const Family& family_of(const std::vector<Family>& families, const Config& config,
                        const char* what) {
  const std::string type = config.string("model_type");
  if (const Family* family = find_family(families, type)) return *family;
  std::string known;
  for (const Family& family : families) {
    for (const std::string& name : family.model_types) known += (known.empty() ? "" : ", ") + name;
  }
  throw UnsupportedError(
      concat(config.where(), ": no ", what, " of model_type \"", type, "\"; known are ", known));
}

}  // namespace tessera
