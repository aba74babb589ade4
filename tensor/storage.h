// Storage: bytes on a device that are owned, mapped read-only from a file, or absent (shapes only).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.h"

namespace cambium {

class Storage {
 public:
  enum class Kind : std::uint8_t { owned, mapped, meta };

  /// Uninitialised bytes from the device's caching allocator.
  static std::shared_ptr<Storage> allocate(Device device, std::size_t bytes);
  /// Part of something that `keeper` keeps alive and that must never be written (a file mapped into memory).
  static std::shared_ptr<Storage> mapped(std::shared_ptr<const void> keeper, const void* data, std::size_t bytes);
  /// No bytes at all: for counting and planning.
  static std::shared_ptr<Storage> meta(std::size_t bytes);

  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  Kind kind() const { return kind_; }

  /// The same bytes in host memory, kept beside integers that came from there (ids, masks, positions), so that checks and models read them without waiting for the
  /// device; null when there are none, and after the first write.
  const std::byte* host_copy() const { return host_copy_.empty() ? nullptr : host_copy_.data(); }
  void keep_host_copy(const void* bytes);

  /// Counts in-place writes, so that a value kept for the backward pass knows when it was changed.
  std::uint32_t version() const { return version_; }
  /// To be called before each in-place write. StateError for mapped and meta storage.
  void begin_write();

 private:
  Storage() = default;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  Kind kind_ = Kind::owned;
  std::uint32_t version_ = 0;
  std::shared_ptr<const void> keeper_;
  std::vector<std::byte> host_copy_;
};

/// A file mapped read-only into memory. FileError when it cannot be opened or is no regular file.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::string path_;
};

}  // namespace cambium
