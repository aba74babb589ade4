// GGUF files: metadata and tensors by mapping, block formats turned into floats on demand.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ggml_types.h"
#include "tensor/tensor.h"

namespace cambium {

enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
std::string_view name_of(GgufType type);

/// One value of the metadata, still lying in the file. Getters are FileErrors naming file and key when the value is of another kind.
class GgufValue {
 public:
  GgufType type() const { return type_; }
  std::int64_t integer() const;              ///< any integer type; FileError above int64
  std::uint64_t natural() const;             ///< any integer type that is not negative
  double number() const;                     ///< any integer or float
  bool boolean() const;
  std::string_view string() const;           ///< lies in the file: valid as long as the GgufFile
  // Arrays, not nested.
  std::size_t size() const;                  ///< of an array
  GgufType element_type() const;
  std::vector<std::string_view> strings() const;
  std::vector<std::int64_t> integers() const;
  std::vector<float> floats() const;         ///< of any number type, rounded to float
  /// For people; long strings and arrays are cut.
  std::string text() const;
  /// The bytes of the value as they lie in the file.
  std::span<const std::byte> raw() const { return bytes_; }

 private:
  friend class GgufFile;
  std::string where() const;
  [[noreturn]] void fail_kind(std::string_view expected) const;
  std::size_t array_begin(GgufType& element, std::uint64_t& count) const;
  std::string_view path_, key_;
  GgufType type_ = GgufType::u8;
  std::span<const std::byte> bytes_;
};

struct GgufTensorInfo {
  std::string_view name;   ///< lies in the file
  GgmlType type = GgmlType::f32;
  Shape shape;             ///< row-major: GGUF stores its sizes in the opposite order
  std::uint64_t offset = 0, bytes = 0;  ///< within the data

  Shape gguf_shape() const;  ///< as GGUF orders it, fastest dimension first
};

/// A file of version 2 or 3, little-endian, whose header has been checked: every count, string, array, shape and range fits.
class GgufFile {
 public:
  /// FileError that says what is wrong, at which byte.
  explicit GgufFile(const std::string& path);
  GgufFile(std::shared_ptr<const void> keeper, std::span<const std::byte> bytes, const std::string& where);

  const std::string& path() const { return *path_; }
  std::uint32_t version() const { return version_; }
  std::uint64_t alignment() const { return alignment_; }

  std::vector<std::string_view> keys() const;  ///< in the order of the file
  std::optional<GgufValue> find(std::string_view key) const;
  GgufValue value(std::string_view key) const;  ///< FileError when absent
  bool has(std::string_view key) const { return find(key).has_value(); }

  const std::vector<GgufTensorInfo>& tensors() const { return tensors_; }  ///< in the order of the file
  bool contains(std::string_view name) const { return find_tensor(name) != nullptr; }
  const GgufTensorInfo& info(std::string_view name) const;  ///< NameError
  std::span<const std::byte> raw(const GgufTensorInfo& info) const { return data_.subspan(info.offset, info.bytes); }

  /// F32, F16, BF16, F64, I8, I32, I64 as they are, sharing the file; block formats as float32. NameError; DTypeError for formats
  /// that are not supported.
  Tensor tensor(std::string_view name) const;
  /// The same as `dtype`, one of float32, bfloat16 and float16 unless it is the tensor's own. Block formats are decoded on `device` and stay there; others are on the CPU.
  Tensor tensor(std::string_view name, DType dtype, Device device = {}) const;

 private:
  class Parser;
  struct Entry {
    std::uint64_t key = 0, value = 0;  // bytes of the file where they begin
  };
  void parse();
  void check_tensor_ranges();
  void check_vocabulary() const;
  const GgufTensorInfo* find_tensor(std::string_view name) const;
  std::string_view string_at(std::uint64_t position) const;
  GgufValue value_at(const Entry& entry) const;

  std::shared_ptr<const std::string> path_;
  std::shared_ptr<const void> keeper_;
  std::span<const std::byte> bytes_, data_;
  std::uint32_t version_ = 0;
  std::uint64_t alignment_ = 32;
  std::vector<Entry> entries_;          // sixteen bytes each: lengths stay in the file
  std::vector<std::uint32_t> by_key_;   // sorted
  std::vector<GgufTensorInfo> tensors_;
  std::vector<std::uint32_t> by_name_;  // sorted
};

}  // namespace cambium
