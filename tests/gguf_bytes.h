// Builds the bytes of GGUF files piece by piece, so that tests can break any of them.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace cambium::test {

template <class T>
std::string little(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
inline std::string gguf_string(std::string_view text) { return little<std::uint64_t>(text.size()) + std::string(text); }

/// A header with counts that follow from what was added, unless set by hand.
struct GgufBytes {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::vector<std::string> entries, tensors;
  std::string data;
  std::uint64_t alignment = 32;

  /// `value`: type and value as they lie in the file.
  GgufBytes& entry(std::string_view key, std::uint32_t type, const std::string& value) {
    entries.push_back(gguf_string(key) + little(type) + value);
    return *this;
  }
  GgufBytes& array(std::string_view key, std::uint32_t element, std::uint64_t count, const std::string& values) {
    return entry(key, 9, little(element) + little(count) + values);
  }
  GgufBytes& strings(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes;
    for (const std::string& value : values) bytes += gguf_string(value);
    return array(key, 8, values.size(), bytes);
  }
  GgufBytes& tensor(std::string_view name, const std::vector<std::uint64_t>& sizes, std::uint32_t type, std::uint64_t offset) {
    std::string bytes = gguf_string(name) + little(static_cast<std::uint32_t>(sizes.size()));
    for (const std::uint64_t size : sizes) bytes += little(size);
    tensors.push_back(bytes + little(type) + little(offset));
    return *this;
  }
  std::string bytes(std::uint64_t tensor_count, std::uint64_t entry_count) const {
    std::string out = magic + little(version) + little(tensor_count) + little(entry_count);
    for (const std::string& entry : entries) out += entry;
    for (const std::string& tensor : tensors) out += tensor;
    if (!data.empty()) out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
  std::string bytes() const { return bytes(tensors.size(), entries.size()); }
};

}  // namespace cambium::test
