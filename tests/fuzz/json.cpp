// Fuzz target: strict JSON. What is accepted prints and parses again to the same value.
#include <cstdint>
#include <cstdlib>

#include "tensor/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const cambium::Json value = cambium::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (cambium::parse_json(value.dump(), "again") != value) std::abort();
  } catch (const cambium::Error&) {
  }
  return 0;
}
