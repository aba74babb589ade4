// Which modules an adapter goes to: PEFT's rules for lists, patterns, exclusions and layers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "peft/config.h"

namespace cambium {

class Module;

/// The rules for one path of a module, in PEFT's order (spec: exclude, list or pattern, layer filter).
class TargetMatcher {
 public:
  TargetMatcher(ModuleSelection targets, ModuleSelection excluded, std::optional<std::vector<std::int64_t>> layers, std::optional<std::vector<std::string>> layers_pattern);
  enum class Result { no, excluded, yes };
  Result match(const std::string& path) const;
  const ModuleSelection& targets() const { return targets_; }
  /// The same for several paths: how often each entry of the exclusions was used is told by unused_exclusions().
  std::vector<std::string> unused_exclusions(const std::vector<std::string>& paths) const;

 private:
  ModuleSelection targets_, excluded_;
  std::optional<std::vector<std::int64_t>> layers_;
  std::vector<std::string> layers_pattern_;
};

/// Whether `path` is `name` or ends with "." + name.
bool ends_with_component(std::string_view path, std::string_view name);
/// Whether a list or pattern hits the path, by itself.
bool selects(const ModuleSelection& selection, const std::string& path);

/// The layer a path belongs to: the first number that has two components before it and one after it, or the one behind a given container name.
std::optional<std::int64_t> layer_index(const std::string& path, const std::vector<std::string>& layers_pattern);

/// First key for which optional anything and a dot, then the key as a regular expression, matches the whole path.
template <class T>
const std::pair<std::string, T>* find_pattern(const std::vector<std::pair<std::string, T>>& patterns, const std::string& path);

/// "all-linear": the paths of all matrix layers but the output embedding and, for classification, the head; at 20 and more, the shortest
/// endings that name the same modules.
std::vector<std::string> all_linear_targets(Module& base, const std::string& output_embedding_path, std::optional<TaskType> task);
/// Shortest endings that hit all of `targets` and none of `others`.
std::vector<std::string> minimal_suffixes(const std::vector<std::string>& targets, const std::vector<std::string>& others);

/// PEFT's table of default LoRA targets for an architecture, or nothing.
std::optional<ModuleSelection> default_lora_targets(const std::string& model_type);
/// The same for IA3, with those of them that are feed-forward.
struct IA3Targets { ModuleSelection targets, feedforward; };
std::optional<IA3Targets> default_ia3_targets(const std::string& model_type);

}  // namespace cambium
