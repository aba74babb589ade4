// Temporary file beside the target, fsync, rename, fsync of the folder.
#include "tensor/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "kernels/error.h"

namespace cambium {

namespace {

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  static std::atomic<unsigned> counter{0};
  const std::string name = path.substr(path.rfind('/') + 1);
  check<FileError>(!name.empty() && name != "." && name != "..", "write: ", path, ": expected the name of a file");
  temporary_ = folder_of(path) + "/.tmp-" + name.substr(0, 200) + '-' + std::to_string(::getpid()) + '-' + std::to_string(counter++);
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_with_reason("cannot be made");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::fail_with_reason(std::string_view action) const {
  fail<FileError>("write: ", path_, ": ", action, ": ", std::strerror(errno));
}

void AtomicFile::write_at(std::uint64_t offset, const void* data, std::size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    constexpr std::size_t kMost = std::size_t{1} << 30;  // the system takes at most 2 GiB at once
    const ssize_t written = ::pwrite(descriptor_, from, std::min(bytes, kMost), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail_with_reason("cannot be written");
    from += written;
    offset += static_cast<std::uint64_t>(written);
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::append(const void* data, std::size_t bytes) {
  write_at(size_, data, bytes);
  size_ += bytes;
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_with_reason("cannot be brought to disk");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with_reason("cannot get its name");
  ::close(descriptor_);
  descriptor_ = -1;
  // Some file systems refuse this; the file is there under its name in any case.
  if (const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
}

void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.append(content);
  file.commit();
}

}  // namespace cambium
