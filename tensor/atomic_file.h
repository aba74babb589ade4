// Files that appear under their name whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cambium {

/// Writes to a temporary name beside `path`; commit() brings it to disk and renames it. Without commit() the target stays as it was.
/// Every failure of the system is a FileError with its reason.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write_at(std::uint64_t offset, const void* data, std::size_t bytes);
  /// Writes behind the last append().
  void append(const void* data, std::size_t bytes);
  void append(std::string_view text) { append(text.data(), text.size()); }
  std::uint64_t size() const { return size_; }  ///< end of what was appended
  void commit();
  const std::string& path() const { return path_; }

 private:
  [[noreturn]] void fail_with_reason(std::string_view action) const;

  std::string path_, temporary_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// A whole small file in one call.
void write_file(const std::string& path, std::string_view content);

}  // namespace cambium
