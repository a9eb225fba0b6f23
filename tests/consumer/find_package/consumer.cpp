#include <iostream>

#include "audio/tower.h"
#include "core/config.h"
#include "core/version.h"
#include "text/language_model.h"
#include "vision/tower.h"

int main() {
  const auto config = tessera::Config::parse(R"({"width": 3})", "consumer");
  std::cout << "Tessera " << tessera::kVersion << "\n";
  const bool complete = config.integer("width") == 3 && !tessera::vision::families().empty() &&
                        !tessera::audio::families().empty() && !tessera::text::families().empty();
  return complete ? 0 : 1;
}
