// Which instruction set the kernels run on: chosen once from what CPU and system support, or by CAMBIUM_KERNELS.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/cpu/isa/table.h"

namespace cambium::kernels::cpu {

/// The chosen set's functions. The first call decides: the widest supported set, or the one that the environment variable
/// CAMBIUM_KERNELS names. ConfigError for a name that this build does not have, DeviceError for a set that the machine does not run.
const IsaTable& isa();

Isa active_isa();
std::string_view isa_name(Isa isa);
Isa parse_isa(std::string_view name);   ///< what CAMBIUM_KERNELS says; the errors of isa()
bool isa_supported(Isa isa);            ///< by CPU and operating system
std::vector<Isa> supported_isas();      ///< narrowest first

/// Selects a set for a scope, in the whole process: for tests and benches. DeviceError if not supported.
class UseIsa {
 public:
  explicit UseIsa(Isa isa);
  ~UseIsa();
  UseIsa(const UseIsa&) = delete;
  UseIsa& operator=(const UseIsa&) = delete;

 private:
  const IsaTable* before_;
};

}  // namespace cambium::kernels::cpu
