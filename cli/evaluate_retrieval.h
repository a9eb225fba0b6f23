#pragma once
#include <memory>
#include <string>

#include "core/context.h"
#include "fusion/examples.h"
#include "fusion/model.h"

namespace tessera::cli {

struct RetrievalScoring {
  std::string file, output;  ///< the examples; where each one's ranks go (empty: nowhere)
  ContextOptions context;
  bool json = false;
};

/// Scores how well images and texts find each other among the examples (pairs_of() some), and
/// returns the exit code.
int evaluate_retrieval(const RetrievalScoring& o, const std::shared_ptr<const fusion::Model>& model,
                       fusion::Examples examples);

}  // namespace tessera::cli
