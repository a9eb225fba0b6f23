// Times the sound tower of a Whisper checkpoint on one window of 30 s: one line of JSON for each
// run.
//     bench_whisper_encoder CHECKPOINT [RUNS [THREADS]]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>

#include "fusion/model.h"

namespace {

/// Peak memory of this program alone (getrusage would count what was there before exec, too).
double peak_megabytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (double kilobytes = 0; word == "VmHWM:" && status >> kilobytes) return kilobytes / 1024;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_whisper_encoder CHECKPOINT [RUNS [THREADS]]\n");
    return 2;
  }
  try {
    const int runs = argc > 2 ? std::atoi(argv[2]) : 5;
    Context ctx({.threads = argc > 3 ? std::atoi(argv[3]) : 0});
    const auto model = fusion::Model::open(argv[1]);
    Tensor mel = Tensor::empty({model->audio->frames(), model->audio->mels()});
    for (std::int64_t i = 0; i < mel.numel(); ++i)
      mel.data()[i] = static_cast<float>(i * 7919 % 1000) / 1000;
    model->encode_frames(ctx, mel);  // oneDNN prepares its kernels
    for (int i = 0; i < runs; ++i) {
      const auto start = std::chrono::steady_clock::now();
      model->encode_frames(ctx, mel);
      const std::chrono::duration<double, std::milli> took =
          std::chrono::steady_clock::now() - start;
      std::printf("{\"ms\": %.2f, \"threads\": %d, \"peak_mb\": %.1f}\n", took.count(),
                  ctx.threads(), peak_megabytes());
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
