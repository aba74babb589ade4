// Storage and files mapped into memory.
#include "tensor/storage.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace cambium {

std::shared_ptr<Storage> Storage::allocate(Device device, std::size_t bytes) {
  std::shared_ptr<Storage> storage(new Storage);
  storage->data_ = kernels::allocate(device, bytes);
  storage->bytes_ = bytes;
  storage->device_ = device;
  return storage;
}

std::shared_ptr<Storage> Storage::mapped(std::shared_ptr<const void> keeper, const void* data, std::size_t bytes) {
  std::shared_ptr<Storage> storage(new Storage);
  storage->data_ = const_cast<void*>(data);  // begin_write() refuses every write
  storage->bytes_ = bytes;
  storage->kind_ = Kind::mapped;
  storage->keeper_ = std::move(keeper);
  return storage;
}

std::shared_ptr<Storage> Storage::meta(std::size_t bytes) {
  std::shared_ptr<Storage> storage(new Storage);
  storage->bytes_ = bytes;
  storage->kind_ = Kind::meta;
  return storage;
}

Storage::~Storage() {
  if (kind_ == Kind::owned) kernels::deallocate(device_, data_, bytes_);
}

void Storage::begin_write() {
  check<StateError>(kind_ == Kind::owned, kind_ == Kind::mapped
      ? "write: the tensor's memory is mapped from a file and read-only: make a copy with clone() first"
      : "write: a meta tensor has no elements");
  ++version_;
  host_copy_ = {};
}

void Storage::keep_host_copy(const void* bytes) {
  const auto* from = static_cast<const std::byte*>(bytes);
  host_copy_.assign(from, from + bytes_);
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const auto reason = [] { return std::string(std::strerror(errno)); };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check<FileError>(descriptor >= 0, "open: ", path, ": ", reason());
  struct stat status {};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    ::close(descriptor);
    fail<FileError>("open: ", path, ": not a regular file");
  }
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->size_ = static_cast<std::size_t>(status.st_size);
  if (file->size_ > 0) {
    void* address = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) {
      const std::string why = reason();
      file->size_ = 0;
      ::close(descriptor);
      fail<FileError>("open: ", path, ": cannot be mapped: ", why);
    }
    file->data_ = static_cast<const std::byte*>(address);
  }
  ::close(descriptor);
  return file;
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace cambium
