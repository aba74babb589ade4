// Adapters that took their part out of the base weights (PiSSA, OLoRA) as plain LoRA for the untouched base. Internal: not installed.
#pragma once

#include <vector>

#include "nn/module.h"
#include "peft/config.h"

namespace cambium::detail {

/// [A; A0] and [B, -B0] from the tensors of a file and those of the adapter as it was initialised: their product is s B A - s B0 A0, what was learned since, for the untouched base.
/// The configuration becomes one of rank 2 r with unchanged scaling. NameError for keys that one of both lacks, ConfigError for a configuration that changes no base.
std::vector<NamedTensor> as_plain_lora(const std::vector<NamedTensor>& tensors, const std::vector<NamedTensor>& initial, LoraConfig& config);

}  // namespace cambium::detail
