// Writing GGUF files of version 3, tensor by tensor.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tensor/gguf.h"

namespace cambium {

/// Metadata of a file to be written, in the order in which keys were first set.
class GgufMetadata {
 public:
  using Value = std::variant<bool, std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t, std::uint64_t, std::int64_t, float,
                             double, std::string, std::vector<std::string>, std::vector<std::int32_t>, std::vector<std::uint32_t>, std::vector<float>>;
  /// Adds or replaces. NameError for an empty key or one above 64 KiB; FileError for values that readers would refuse.
  GgufMetadata& set(const std::string& key, const Value& value);
  GgufMetadata& set(const std::string& key, const char* value) { return set(key, std::string(value)); }
  /// The value of another file as it is there; FileError when absent.
  GgufMetadata& copy(const GgufFile& file, const std::string& key);

 private:
  friend class GgufWriter;
  std::string& slot(const std::string& key);
  std::vector<std::pair<std::string, std::string>> entries_;  // key; type and value as they lie in the file
};

/// Writes header and metadata at once and each tensor when it is at hand; the file gets its name at the end.
class GgufWriter {
 public:
  struct Entry {
    std::string name;
    GgmlType type = GgmlType::f32;  ///< F32, F16, BF16 or Q8_0
    Shape shape;                    ///< row-major; 1 to 4 dimensions of at least 1; for Q8_0 the last a multiple of 32
  };
  /// NameError, ShapeError, DTypeError for entries that no reader would take.
  GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<Entry> entries);
  ~GgufWriter();
  GgufWriter(GgufWriter&&) noexcept;

  /// Any order, each once; a float tensor of the declared shape, converted to the declared type. NameError, ShapeError, DTypeError.
  void write(std::string_view name, const Tensor& tensor);
  void finish();  ///< StateError when a tensor is missing

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct GgufTensor {
  std::string name;
  Tensor tensor;
  GgmlType type = GgmlType::f32;
};
void save_gguf(const std::string& path, const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors);

}  // namespace cambium
