// Differences of models, cut to low rank.
#include "peft/extract.h"

#include <algorithm>
#include <cmath>

#include "peft/merge_source.h"
#include "peft/targets.h"

namespace cambium {

namespace {

bool is_table_or_head(const std::string& path) {
  const std::string last = path.substr(path.rfind('.') + 1);
  for (const char* name : {"embed_tokens", "wte", "wpe", "word_embeddings", "position_embeddings", "token_type_embeddings", "shared", "embed_in", "embed_out", "lm_head", "relative_attention_bias"})
    if (last == name) return true;
  return false;
}

/// The path below the causal language model: backbones alone are saved without the component that holds them.
std::string module_path(const std::string& path, const std::string& model_type, bool bare) {
  if (!bare) return path;
  return (model_type == "gpt2" ? "transformer." : "model.") + path;
}

bool equal_values(const MergeSource& a, std::size_t i, const MergeSource& b, std::size_t j) {
  const Tensor x = a.whole(i), y = b.whole(j);
  if (!is_float(x.dtype())) return x.to_vector<std::int64_t>() == y.to_vector<std::int64_t>();
  return max(abs(sub(to_dtype(x, DType::f32), to_dtype(y, DType::f32)))).item() == 0.0;
}

}  // namespace

LoraAdapter extract_adapter(const std::string& base_folder, const std::string& tuned_folder, const ExtractOptions& options, ExtractReport* report, const CombinationProgress& progress) {
  NoGrad no_grad;
  check<ConfigError>(options.rank > 0, "extract: expected a positive rank, found ", options.rank);
  const auto base = open_huggingface_source(base_folder), tuned = open_huggingface_source(tuned_folder);
  check<NameError>(base->items().size() == tuned->items().size(), "extract: ", base_folder, " holds ", base->items().size(), " tensors, ", tuned_folder, " ", tuned->items().size(), ": they are not of one model");
  std::map<std::string, std::size_t> others;
  for (std::size_t i = 0; i < tuned->items().size(); ++i) others[tuned->items()[i].name] = i;
  const std::string model_type = base->config().value("model_type", std::string());
  const bool bare = std::none_of(base->items().begin(), base->items().end(), [](const auto& item) { return item.name.starts_with("transformer.") || item.name.starts_with("model."); });

  LoraAdapter out;
  out.where = tuned_folder;
  ExtractReport found;
  found.modules.rank = options.rank;
  for (std::size_t i = 0; i < base->items().size(); ++i) {
    const MergeSource::Item& item = base->items()[i];
    const auto at = others.find(item.name);
    check<NameError>(at != others.end(), "extract: ", tuned_folder, " has no tensor '", item.name, "': they are not of one model");
    const Shape& shape = tuned->items()[at->second].shape;
    check<ShapeError>(shape == item.shape, "extract: '", item.name, "' is ", item.shape, " in ", base_folder, " and ", shape, " in ", tuned_folder, ": they are not of one model");
    if (progress) progress(i + 1, base->items().size(), item.name);
    if (item.shape.count() == 0 || equal_values(*base, i, *tuned, at->second)) continue;
    const bool is_matrix = item.shape.rank() == 2 && item.name.ends_with(".weight");
    const std::string path = is_matrix ? module_path(item.name.substr(0, item.name.size() - 7), model_type, bare) : "";
    if (!is_matrix || (options.target_modules.given() ? !selects(options.target_modules, path) : is_table_or_head(path))) {
      found.left_over.push_back(item.name);
      continue;
    }
    Tensor difference = sub(to_dtype(tuned->whole(at->second), DType::f32), to_dtype(base->whole(i), DType::f32));
    if (base->matrix(i).transposed) difference = contiguous(transpose(difference));
    const bool randomised = prefers_randomised_svd(difference.size(0), difference.size(1), options.rank);
    const SvdResult svd = randomised ? randomised_svd(difference, options.rank, options.key.fold(path)) : svd_of_matrix(difference);
    const LowRankFactors factors = truncate(svd, options.rank);
    const Tensor missing = sub(difference, matmul(factors.b, factors.a));
    const double error = std::sqrt(sum(mul(missing, missing)).item() / sum(mul(difference, difference)).item());
    out.parts.push_back({path, false, 1.0, factors.a, factors.b, {}, {}});
    found.modules.modules.push_back({path, {std::min(difference.size(0), difference.size(1))}, options.rank, randomised ? "randomised" : "dense", error});
    base->forget(i);
    tuned->forget(at->second);
  }
  check<ConfigError>(!out.parts.empty(), "extract: no matrix of ", tuned_folder, " differs from ", base_folder, options.target_modules.given() ? " among target_modules" : "");
  std::vector<std::string> targets;
  for (const LoraAdapter::Part& part : out.parts) targets.push_back(part.path);
  out.config.target_modules = targets;
  out.config.r = options.rank;
  out.config.lora_alpha = static_cast<double>(options.rank);
  out.config.fan_in_fan_out = model_type == "gpt2";
  out.config.base_model_name_or_path = base_folder;
  out.config.inference_mode = true;
  out.config.task_type = TaskType::CAUSAL_LM;
  if (report) *report = std::move(found);
  return out;
}

}  // namespace cambium
