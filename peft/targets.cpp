// Matching paths of modules.
#include "peft/targets.h"

#include <algorithm>
#include <set>

#include "nn/module.h"
#include "nn/pattern.h"
#include "peft/adapter_layer.h"

namespace cambium {

namespace {

bool all_digits(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }); }

std::vector<std::string_view> components(std::string_view path) {
  std::vector<std::string_view> out;
  for (;;) {
    const std::size_t dot = path.find('.');
    out.push_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return out;
    path.remove_prefix(dot + 1);
  }
}

std::optional<std::int64_t> parse_index(std::string_view digits) {
  if (digits.size() > 18) return std::nullopt;  // no model has that many layers
  return std::stoll(std::string(digits));
}

std::vector<std::string> suffixes(const std::string& path) {  // shortest first
  std::vector<std::string> out;
  for (std::size_t dot = path.rfind('.');; dot = path.rfind('.', dot - 1)) {
    if (dot == std::string::npos) {
      out.push_back(path);
      return out;
    }
    out.push_back(path.substr(dot + 1));
    if (dot == 0) return out;
  }
}

}  // namespace

bool ends_with_component(std::string_view path, std::string_view name) {
  if (path == name) return true;
  return path.size() > name.size() && path.ends_with(name) && path[path.size() - name.size() - 1] == '.';
}

bool selects(const ModuleSelection& selection, const std::string& path) {
  if (!selection.given()) return false;
  if (selection.is_pattern()) return Pattern(selection.pattern()).matches_whole(path);
  return std::any_of(selection.names().begin(), selection.names().end(), [&](const std::string& name) { return ends_with_component(path, name); });
}

std::optional<std::int64_t> layer_index(const std::string& path, const std::vector<std::string>& layers_pattern) {
  const std::vector<std::string_view> parts = components(path);
  if (layers_pattern.empty()) {
    for (std::size_t i = 2; i + 1 < parts.size(); ++i)
      if (all_digits(parts[i])) return parse_index(parts[i]);
    return std::nullopt;
  }
  // PEFT inserts each entry as a raw regular expression: ".*\.ENTRY\.(\d+)\."; the first entry that occurs decides, and its earliest number counts.
  for (const std::string& entry : layers_pattern) {
    const Pattern pattern(".*?\\." + entry + "\\.\\d+\\.");
    if (!pattern.matches_start(path)) continue;
    for (std::size_t i = 1; i + 1 < parts.size(); ++i) {
      if (!all_digits(parts[i])) continue;
      const std::size_t end = static_cast<std::size_t>(parts[i].data() + parts[i].size() - path.data());
      if (pattern.matches_whole(std::string_view(path).substr(0, end + 1))) return parse_index(parts[i]);
    }
  }
  return std::nullopt;
}

TargetMatcher::TargetMatcher(ModuleSelection targets, ModuleSelection excluded, std::optional<std::vector<std::int64_t>> layers, std::optional<std::vector<std::string>> layers_pattern)
    : targets_(std::move(targets)), excluded_(std::move(excluded)), layers_(std::move(layers)) {
  if (layers_pattern)
    for (std::string& entry : *layers_pattern)
      if (!entry.empty()) layers_pattern_.push_back(std::move(entry));
}

TargetMatcher::Result TargetMatcher::match(const std::string& path) const {
  if (selects(excluded_, path)) return Result::excluded;
  if (!targets_.given()) return Result::no;
  if (targets_.is_pattern()) return Pattern(targets_.pattern()).matches_whole(path) ? Result::yes : Result::no;
  const std::vector<std::string>& names = targets_.names();
  if (std::find(names.begin(), names.end(), path) != names.end()) return Result::yes;  // an exact path passes the layer filter
  if (std::none_of(names.begin(), names.end(), [&](const std::string& name) { return ends_with_component(path, name); })) return Result::no;
  if (layers_ && !layers_->empty()) {
    const std::optional<std::int64_t> layer = layer_index(path, layers_pattern_);
    if (!layer || std::find(layers_->begin(), layers_->end(), *layer) == layers_->end()) return Result::no;
  }
  return Result::yes;
}

std::vector<std::string> TargetMatcher::unused_exclusions(const std::vector<std::string>& paths) const {
  std::vector<std::string> unused;
  if (!excluded_.given()) return unused;
  const std::vector<std::string> entries = excluded_.is_pattern() ? std::vector{excluded_.pattern()} : excluded_.names();
  for (const std::string& entry : entries) {
    const ModuleSelection alone = excluded_.is_pattern() ? ModuleSelection(entry) : ModuleSelection(std::vector{entry});
    if (std::none_of(paths.begin(), paths.end(), [&](const std::string& path) { return selects(alone, path); })) unused.push_back(entry);
  }
  return unused;
}

template <class T>
const std::pair<std::string, T>* find_pattern(const std::vector<std::pair<std::string, T>>& patterns, const std::string& path) {
  for (const auto& entry : patterns)
    if (Pattern("(.*\\.)?(" + entry.first + ")$").matches_start(path)) return &entry;
  return nullptr;
}
template const std::pair<std::string, std::int64_t>* find_pattern(const std::vector<std::pair<std::string, std::int64_t>>&, const std::string&);
template const std::pair<std::string, double>* find_pattern(const std::vector<std::pair<std::string, double>>&, const std::string&);

std::vector<std::string> minimal_suffixes(const std::vector<std::string>& targets, const std::vector<std::string>& others) {
  std::set<std::string> taken;
  for (const std::string& other : others)
    for (std::string& suffix : suffixes(other)) taken.insert(std::move(suffix));
  std::set<std::string> chosen;
  for (const std::string& target : targets)
    for (const std::string& suffix : suffixes(target)) {
      if (!chosen.contains(suffix) && taken.contains(suffix)) continue;
      if (std::none_of(chosen.begin(), chosen.end(), [&](const std::string& c) { return ends_with_component(target, c); })) chosen.insert(suffix);
      break;
    }
  if (chosen.empty()) return targets;
  return {chosen.begin(), chosen.end()};
}

std::vector<std::string> all_linear_targets(Module& base, const std::string& output_embedding_path, std::optional<TaskType> task) {
  std::vector<std::string> targets, others;
  std::string inside;  // an adapted layer counts once, as itself
  base.visit([&](const std::string& path, Module& module) {
    if (path.empty() || (!inside.empty() && path.starts_with(inside))) return;
    const auto* adapter = dynamic_cast<const AdapterLayer*>(&module);
    if (adapter) inside = path + ".";
    bool linear = (dynamic_cast<LinearLike*>(&module) != nullptr || (adapter && !adapter->is_embedding())) && path != output_embedding_path;
    const std::string last = path.substr(path.rfind('.') + 1);
    if (task == TaskType::SEQ_CLS && (last == "score" || last == "classifier")) linear = false;
    (linear ? targets : others).push_back(path);
  });
  if (targets.size() < 20) {
    std::sort(targets.begin(), targets.end());
    return targets;
  }
  return minimal_suffixes(targets, others);
}

}  // namespace cambium
