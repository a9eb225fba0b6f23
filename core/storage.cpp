#include "core/storage.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace tessera {
namespace {
constexpr std::size_t kAlign = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20, kLarge = std::size_t{2} << 20;
#ifdef TESSERA_EXACT_BUFFERS  // for sanitizers: each buffer by itself, as long as asked for
constexpr bool kReuse = false;
constexpr std::size_t kRound = 1;
#else
constexpr bool kReuse = true;
constexpr std::size_t kRound = 4096;
#endif

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }
}  // namespace

struct alignas(kAlign) Storage::Block {
  std::atomic<int> references{1};
  void* data = nullptr;
  std::size_t capacity = 0;
  std::size_t bytes = 0;              // of it in use
  std::shared_ptr<BufferPool> pool;   // to return to; null: freed
  std::shared_ptr<const void> owner;  // of foreign memory

  static std::align_val_t alignment(std::size_t capacity) {
    return std::align_val_t{capacity >= kLarge ? kHugePage : kAlign};
  }
  /// Header and memory in one aligned allocation; large ones on large pages where there are such.
  static Block* make(std::size_t capacity) {
    if (capacity > SIZE_MAX - sizeof(Block)) throw std::bad_alloc();
    void* memory = ::operator new(sizeof(Block) + capacity, alignment(capacity));
#ifdef __linux__
    if (capacity >= kLarge) ::madvise(memory, sizeof(Block) + capacity, MADV_HUGEPAGE);
#endif
    Block* block = new (memory) Block;
    block->data = static_cast<char*>(memory) + sizeof(Block);
    block->capacity = capacity;
    return block;
  }
  static void destroy(Block* block) {
    const std::align_val_t align = alignment(block->capacity);
    block->~Block();
    ::operator delete(block, align);
  }
};

Storage Storage::heap(std::size_t bytes) {
  Block* block = Block::make(kReuse ? round_up(bytes, kAlign) : bytes);
  block->bytes = bytes;
  return Storage(block);
}

Storage Storage::pooled(const std::shared_ptr<BufferPool>& pool, std::size_t bytes) {
  Block* block = pool->take(round_up(bytes, kRound));
  block->references.store(1, std::memory_order_relaxed);
  block->pool = pool;
  block->bytes = bytes;
  return Storage(block);
}

Storage Storage::foreign(const void* data, std::shared_ptr<const void> owner) {
  Block* block = Block::make(0);
  block->data = const_cast<void*>(data);
  block->owner = std::move(owner);
  return Storage(block);
}

void* Storage::data() const { return block_ ? block_->data : nullptr; }
std::size_t Storage::bytes() const { return block_ ? block_->bytes : 0; }

bool Storage::unique() const {
  return block_ && block_->references.load(std::memory_order_acquire) == 1;
}

void Storage::retain() const {
  if (block_) block_->references.fetch_add(1, std::memory_order_relaxed);
}

void Storage::release() {
  if (!block_ || block_->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (const auto pool = std::move(block_->pool)) {
    pool->put(block_);
  } else {
    Block::destroy(block_);
  }
  block_ = nullptr;
}

BufferPool::~BufferPool() { trim(); }

void BufferPool::trim() {
  const std::lock_guard lock(mutex_);
  for (Storage::Block* block : free_) Storage::Block::destroy(block);
  free_.clear();
}

Storage::Block* BufferPool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    const auto best = std::ranges::lower_bound(free_, bytes, {}, &Storage::Block::capacity);
    if (best != free_.end() && (*best)->capacity / 2 <= bytes) {
      Storage::Block* block = *best;
      free_.erase(best);
      return block;
    }
  }
  return Storage::Block::make(bytes);
}

void BufferPool::put(Storage::Block* block) {
  if (!kReuse) return Storage::Block::destroy(block);
  const std::lock_guard lock(mutex_);
  free_.insert(std::ranges::lower_bound(free_, block->capacity, {}, &Storage::Block::capacity),
               block);  // first among equals: a cache may still hold it
}

}  // namespace tessera
