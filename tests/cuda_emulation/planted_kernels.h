// Small kernels, right ones and ones with a bug in each way that emulation has to find.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace planted {

/// Runs one case; true if the numbers are right. What the emulator says is left to the caller.
using Case = std::function<bool()>;
/// By name; "right_…" have no bug.
const std::map<std::string, Case>& cases();

}  // namespace planted
