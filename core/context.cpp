#include "core/context.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "core/kernels/matmul.h"
#include "core/thread_pool.h"

namespace tessera {
namespace {

/// Whole processors a cgroup (v2 or v1) grants, 0 where there is no limit.
int cgroup_limit() {
  double quota = 0, period = 0;
  std::string text;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> text >> period && text != "max") {
    quota = std::strtod(text.c_str(), nullptr);
  } else if (std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); q >> quota && quota > 0) {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(std::ceil(quota / period))) : 0;
}

}  // namespace

int physical_cores() {
  int cores = 0;
#ifdef __linux__
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::set<std::pair<int, int>> seen;  // (package, core)
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      const std::string topology =
          "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
      int package = 0, core = cpu;
      std::ifstream(topology + "physical_package_id") >> package;
      std::ifstream(topology + "core_id") >> core;
      seen.insert({package, core});
    }
    cores = static_cast<int>(seen.size());
  }
#endif
  if (cores == 0) cores = static_cast<int>(std::thread::hardware_concurrency());
  if (const int limit = cgroup_limit()) cores = std::min(cores, limit);
  return std::max(1, cores);
}

struct Context::Impl {
  explicit Impl(const ContextOptions& options)
      : threads(options.threads > 0 ? options.threads : physical_cores()),
        workers(threads),
        log(options.log) {}
  int threads;
  ThreadPool workers;
  std::shared_ptr<BufferPool> pool = std::make_shared<BufferPool>();
  std::pmr::unsynchronized_pool_resource lists;
  std::shared_ptr<kernels::MatmulCache> matmuls = kernels::make_matmul_cache();
  LogCallback log;
};

Context::Context(const ContextOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Context::~Context() = default;

int Context::threads() const { return impl_->threads; }

void Context::parallel_for(std::int64_t count, TaskRef task) { impl_->workers.run(count, task); }

Tensor Context::empty(const Shape& shape, DType type) {
  return Tensor::pooled(impl_->pool, shape, type);
}

std::pmr::memory_resource* Context::lists() { return &impl_->lists; }

void Context::trim() { impl_->pool->trim(); }

kernels::MatmulCache& Context::matmul_cache() { return *impl_->matmuls; }

void Context::log(LogLevel level, const std::string& message) const {
  if (impl_->log) impl_->log(level, message);
}

}  // namespace tessera
