// Names of tensors in checkpoints: with or without the member that holds the backbone, and spellings of old versions.
#include <algorithm>

#include "nn/models/loading.h"

namespace cambium {

namespace {

bool starts_with_any(std::string_view name, std::span<const std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view prefix) { return name.starts_with(prefix); });
}

/// `name` behind "backbone.", or nothing.
std::optional<std::string_view> behind(std::string_view name, std::string_view backbone) {
  if (backbone.empty() || !name.starts_with(backbone) || name.substr(backbone.size(), 1) != ".") return {};
  return name.substr(backbone.size() + 1);
}

/// Causal masks, position numbers and rotary tables that older versions of transformers wrote, and a table of T5 that no version reads: nothing that a model uses.
bool is_constant_buffer(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name.ends_with(".rotary_emb.inv_freq") || name.ends_with("embeddings.position_ids") ||
         name.ends_with(".EncDecAttention.relative_attention_bias.weight");
}

/// TensorFlow's names of layer norms, which early BERT checkpoints have.
std::string current_spelling(std::string name) {
  for (const auto& [old, now] : {std::pair<std::string_view, std::string_view>{"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}})
    if (name.ends_with(old)) return name.replace(name.size() - old.size(), old.size(), now);
  return name;
}

}  // namespace

TensorSource renamed(const ModelFamily& family, const ModelClass& chosen, const TensorSource& source) {
  const auto inner = [&](std::string_view name) -> std::optional<std::string_view> {
    for (const ModelClass& row : family.classes)
      if (const auto rest = behind(name, row.backbone)) return rest;
    return {};
  };
  // The bare model is saved without the name of the member that holds it in the others.
  const bool bare = std::none_of(source.tensors.begin(), source.tensors.end(), [&](const auto& entry) { return inner(entry.first).has_value(); });
  TensorSource out{source.where, {}};
  for (const auto& [stored, read] : source.tensors) {
    if (is_constant_buffer(stored)) continue;
    std::string name = current_spelling(stored);
    std::optional<std::string_view> rest = inner(name);
    if (!rest && bare && !starts_with_any(name, family.heads)) rest = name;
    if (rest) name = (chosen.backbone.empty() ? "" : std::string(chosen.backbone) + ".") + std::string(*rest);
    check<FileError>(out.tensors.emplace(name, read).second, source.where, ": '", stored, "' is there under two names");
  }
  return out;
}

bool is_optional_part(const ModelFamily& family, const ModelClass& chosen, std::string_view name) {
  if (starts_with_any(name, family.heads)) return true;
  const std::optional<std::string_view> inner = chosen.backbone.empty() ? std::optional(name) : behind(name, chosen.backbone);
  return inner && starts_with_any(*inner, family.optional);
}

}  // namespace cambium
