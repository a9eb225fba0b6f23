// A main for fuzz harnesses where libFuzzer is not to be had. Understands libFuzzer's basic
// arguments:
//     fuzz_x FILE...                                     runs the harness on each file, once
//     fuzz_x -max_total_time=60 [-seed=1] [-max_len=65536] [-artifact_prefix=DIR/] DIR|FILE...
//                                                        then on random changes of them, for 60
//                                                        seconds
// The input that the program dies of is written to <prefix>crash-<n>.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes current;           // what the harness is running on
std::string crash_file;  // where it goes if the program dies of it

void save_current() {
  const int file = open(crash_file.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (file < 0) return;
  const auto written = write(file, current.data(), current.size());
  static_cast<void>(written);
  close(file);
}

void die(int signal) {
  save_current();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(const Bytes& input) {
  current = input;
  LLVMFuzzerTestOneInput(current.data(), current.size());
}

class Mutator {
 public:
  Mutator(std::uint64_t seed, std::size_t max_size) : random_(seed), max_size_(max_size) {}

  /// One of the inputs after one to eight random changes.
  Bytes operator()(const std::vector<Bytes>& inputs) {
    Bytes bytes = inputs[below(inputs.size())];
    for (std::size_t n = 1 + below(8); n > 0; --n) change(bytes, inputs[below(inputs.size())]);
    if (bytes.size() > max_size_) bytes.resize(max_size_);
    return bytes;
  }

 private:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }

  void change(Bytes& bytes, const Bytes& other) {
    static constexpr std::uint8_t kEdges[] = {0x00, 0x01, 0x7f, 0x80, 0xff,
                                              '"',  '{',  '[',  '-',  '9'};
    if (bytes.empty()) bytes.push_back(static_cast<std::uint8_t>(random_()));
    const std::size_t at = below(bytes.size());
    const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const std::size_t count = 1 + below(std::min<std::size_t>(bytes.size() - at, 64));
    const auto end = begin + static_cast<std::ptrdiff_t>(count);
    switch (below(7)) {
      case 0:
        bytes[at] ^= static_cast<std::uint8_t>(1u << below(8));
        break;
      case 1:
        bytes[at] = static_cast<std::uint8_t>(random_());
        break;
      case 2:
        std::fill(begin, end, kEdges[below(std::size(kEdges))]);
        break;
      case 3:
        bytes.erase(begin, end);
        break;
      case 4:
        insert(bytes, at, Bytes(begin, end));
        break;
      case 5:
        insert(bytes, at, part_of(other));
        break;
      case 6:
        bytes.resize(at);
        break;
    }
  }

  Bytes part_of(const Bytes& other) {
    if (other.empty()) return {};
    const std::size_t at = below(other.size());
    const std::size_t count = 1 + below(other.size() - at);
    const auto begin = other.begin() + static_cast<std::ptrdiff_t>(at);
    return Bytes(begin, begin + static_cast<std::ptrdiff_t>(count));
  }

  static void insert(Bytes& bytes, std::size_t at, const Bytes& part) {
    bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), part.begin(), part.end());
  }

  std::mt19937_64 random_;
  std::size_t max_size_;
};

void read(const std::filesystem::path& path, std::vector<Bytes>& inputs) {
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::directory_iterator(path)) read(entry.path(), inputs);
  } else {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> options = {
      {"max_total_time", "0"}, {"seed", "1"}, {"max_len", "65536"}, {"artifact_prefix", ""}};
  std::vector<Bytes> inputs;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto equals = argument.find('=');
    if (argument[0] != '-') {
      read(argument, inputs);
    } else if (equals != std::string::npos) {
      options[argument.substr(1, equals - 1)] = argument.substr(equals + 1);
    }
  }
  crash_file = options["artifact_prefix"] + "crash-" + std::to_string(getpid());
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, die);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(save_current);

  std::uint64_t runs = 0;
  for (const Bytes& input : inputs) run(input), ++runs;
  if (inputs.empty()) inputs.emplace_back();
  Mutator mutate(std::stoull(options["seed"]), std::stoul(options["max_len"]));
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::seconds(std::stol(options["max_total_time"]));
  for (; std::chrono::steady_clock::now() < end; ++runs) run(mutate(inputs));
  std::printf("Done %llu runs\n", static_cast<unsigned long long>(runs));
}
