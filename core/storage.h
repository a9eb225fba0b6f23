#pragma once
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace tessera {

class BufferPool;

/// A counted reference to a block of memory: 64-byte aligned heap memory, a pool's block, or
/// foreign memory kept alive by an owner. The counter lives in the block, so passing tensors around
/// never allocates.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage& other) : block_(other.block_) { retain(); }
  Storage(Storage&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Storage& operator=(Storage other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Storage() { release(); }

  static Storage heap(std::size_t bytes);
  static Storage pooled(const std::shared_ptr<BufferPool>& pool, std::size_t bytes);
  static Storage foreign(const void* data, std::shared_ptr<const void> owner);

  void* data() const;
  /// As asked for; 0 for foreign memory.
  std::size_t bytes() const;
  /// Whether this is the only reference.
  bool unique() const;

 private:
  friend class BufferPool;
  struct Block;
  explicit Storage(Block* block) : block_(block) {}
  void retain() const;
  void release();
  Block* block_ = nullptr;
};

/// Memory blocks for scratch tensors: a released block is kept and handed out again to a request
/// that it fits.
class BufferPool {
 public:
  ~BufferPool();
  /// Frees all blocks nobody uses.
  void trim();

 private:
  friend class Storage;
  Storage::Block* take(std::size_t bytes);
  void put(Storage::Block* block);
  std::mutex mutex_;
  std::vector<Storage::Block*> free_;  // by capacity
};

}  // namespace tessera
