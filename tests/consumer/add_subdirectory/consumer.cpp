#include <iostream>

#include "core/config.h"
#include "core/version.h"

int main() {
  const auto config = tessera::Config::parse(R"({"width": 3})", "consumer");
  std::cout << "Tessera " << tessera::kVersion << "\n";
  return config.integer("width") == 3 ? 0 : 1;
}
