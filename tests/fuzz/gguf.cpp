// Fuzz target: GGUF. Every value and every tensor of an accepted file can be read.
#include <cstdint>

#include "tensor/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cambium;
  try {
    const GgufFile file(nullptr, {reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    for (const std::string_view key : file.keys()) file.value(key).text();
    for (const GgufTensorInfo& info : file.tensors()) {
      const GgmlFormat& format = ggml_format(info.type);
      if (format.dtype || format.dequantizes) file.tensor(info.name).to_vector<float>();
    }
  } catch (const Error&) {
  }
  return 0;
}
