// Combining IA3 adapters: the weighted sum of their vectors.
#pragma once

#include <string>
#include <vector>

#include "peft/config.h"
#include "peft/tuner.h"

namespace cambium {

/// One IA3 adapter as data, apart from any model.
struct Ia3Adapter {
  std::string where;                 ///< folder or adapter's name, for messages
  IA3Config config;
  std::vector<NamedTensor> vectors;  ///< by module's path
  std::vector<NamedTensor> others;   ///< copies of modules, under their keys
};

/// Sorts the tensors of a file; keys with or without prefix, with or without an adapter's name.
Ia3Adapter make_ia3_adapter(const IA3Config& config, const std::vector<NamedTensor>& tensors, const std::string& where);
Ia3Adapter read_ia3_adapter(const std::string& folder, std::vector<std::string>* warnings = nullptr);
std::vector<NamedTensor> file_tensors(const Ia3Adapter& adapter);

/// l = sum of weights[i] l_i for each module; one that only some adapters have gets their share, not that of a factor of 1, as in PEFT. Targets and feed-forward modules are united.
/// ConfigError for weights that are not one per source, targets of which some are lists and some patterns, a module that is feed-forward in one source only, two copies of one module.
Ia3Adapter combine_ia3_adapters(const std::vector<Ia3Adapter>& sources, const std::vector<double>& weights);

}  // namespace cambium
