// Switching, mixing, merging and combining two LoRA adapters against stored numbers.
#include "tests/goldens/combinations.h"

#include <cmath>
#include <filesystem>
#include <set>

#include "autograd/ops.h"
#include "peft/peft_model.h"

namespace cambium::test {

namespace fs = std::filesystem;

namespace {

struct TwoAdapters {
  explicit TwoAdapters(const CaseFiles& case_files)
      : files(case_files), peft(PeftModel::from_pretrained(load_base(files), file("a"), "a")) {
    peft.load_adapter(file("b"), "b");
  }
  std::string file(const char* adapter) const { return (fs::path(files.folder) / files.json.at("adapters").at(adapter).get<std::string>()).string(); }
  Tensor logits(const ForwardContext& context = {}) const { return peft.forward(files.input(), context).logits; }
  void compare(const std::string& kind, Comparison& out, const ForwardContext& context = {}) const { compare(kind, logits(context), out); }
  void compare(const std::string& kind, const Tensor& found, Comparison& out) const {
    out.close(kind, found, files.io.contains(kind) ? files.io.at(kind) : Tensor(), files.tolerance("logits"), files.compare_mask());
  }

  const CaseFiles& files;
  PeftModel peft;
};

CombineOptions options_of(const Json& row) {
  CombineOptions o;
  o.combination_type = row.at("combination_type").get<std::string>();
  if (row.contains("svd_rank")) o.svd_rank = row.at("svd_rank").get<std::int64_t>();
  if (row.contains("svd_clamp")) o.svd_clamp = row.at("svd_clamp").get<double>();
  if (row.contains("density")) o.density = row.at("density").get<double>();
  if (row.contains("majority_sign_method")) o.majority_sign_method = row.at("majority_sign_method").get<std::string>();
  o.compat = MergeCompat::peft_0_21;  // what made the files
  return o;
}

/// One result of add_weighted_adapter: its configuration, its deltas or factors, the logits with it.
void compare_result(const Json& row, TwoAdapters& two, const std::map<std::string, Tensor>& stored, std::set<std::string>& used, Comparison& out) {
  const std::string name = row.at("name").get<std::string>();
  if (row.contains("error")) {
    out.failure(name + ": the reference refused this: '" + row.at("error").get<std::string>() + "' is not compared");
    return;
  }
  PeftModel& peft = two.peft;
  peft.add_weighted_adapter(row.at("adapters").get<std::vector<std::string>>(), row.at("weights").get<std::vector<double>>(), name, options_of(row));
  const auto& config = std::get<LoraConfig>(peft.peft_config(name));
  out.within("config", std::fabs(static_cast<double>(config.r) - row.at("new_r").get<double>()), 0.0);
  out.within("config", std::fabs(config.lora_alpha - row.at("new_alpha").get<double>()), 0.0);
  out.same("config", config.use_rslora == row.at("use_rslora").get<bool>(), name + ": other use_rslora");
  out.same("config", config.target_modules.is_list() && config.target_modules.names() == row.at("target_modules").get<std::vector<std::string>>(), name + ": other target_modules");
  std::set<double> scalings;
  for (const auto& [path, layer] : peft.lora().lora_layers())
    if (layer->has_adapter(name)) scalings.insert(std::round(layer->scaling(name) * 1e6) / 1e6);
  out.same("config", std::vector<double>(scalings.begin(), scalings.end()) == row.at("scaling").get<std::vector<double>>(), name + ": other scaling");

  const std::string prefix = name + "/";
  std::map<std::string, Tensor> factors;
  for (const auto& [key, slot] : peft.base_model->adapter_state(name)) factors[key] = detach(slot->tensor);
  for (const auto& [key, tensor] : stored) {
    if (!key.starts_with(prefix)) continue;
    used.insert(key);
    const std::string rest = key.substr(prefix.size());
    if (rest.ends_with(".delta")) {
      out.close("deltas", peft.get_delta_weight(rest.substr(0, rest.size() - 6), name), tensor, two.files.tolerance("delta"));
    } else {
      out.close("factors", factors.contains(rest) ? factors.at(rest) : Tensor(), tensor, two.files.tolerance("factors"));
    }
  }
  peft.set_adapter(name);
  two.compare("logits." + name, out);
  peft.set_adapter("a");
  peft.delete_adapter(name);
}

void compare_merging(TwoAdapters& two, Comparison& out) {
  PeftModel& peft = two.peft;
  std::map<std::string, std::vector<double>> before;
  for (const auto& [path, layer] : peft.base_model->adapter_layers()) before[path] = layer->weight().get().to_vector<double>();
  peft.set_adapter(std::vector<std::string>{"a", "b"});
  peft.merge_adapter({"a"});
  peft.merge_adapter({"b"});
  two.compare("logits.a+b", out);
  peft.unmerge_adapter();
  for (const auto& [path, layer] : peft.base_model->adapter_layers()) out.same("unmerged", layer->weight().get().to_vector<double>() == before[path], path + " is not what it was");
  {
    const DisableAdapter off(peft);
    two.compare("base_logits", out);
  }
  // The model is given away, so on one of its own.
  TwoAdapters given(two.files);
  const ModelInput input = two.files.input();
  two.compare("logits.merge_and_unload.b", given.peft.merge_and_unload(false, {"b"})->forward(input).logits, out);
  TwoAdapters taken(two.files);
  two.compare("logits.unload", taken.peft.unload()->forward(input).logits, out);
}

}  // namespace

Comparison compare_two_adapters(const std::string& folder, const std::string& name) {
  NoGrad no_grad;
  Comparison out(name);
  const CaseFiles files(folder);
  TwoAdapters two(files);
  PeftModel& peft = two.peft;
  two.compare("logits.a", out);
  peft.set_adapter("b");
  two.compare("logits.b", out);
  peft.set_adapter(std::vector<std::string>{"a", "b"});
  two.compare("logits.a+b", out);
  ForwardContext mixed;
  mixed.adapter_names = files.json.at("mixed_batch_adapter_names").get<std::vector<std::string>>();
  two.compare("logits.mixed", out, mixed);
  compare_merging(two, out);
  peft.set_adapter("a");
  for (const auto& [path, layer] : peft.lora().lora_layers()) layer->scale_layer(0.5);
  two.compare("logits.a.scale_layer_0.5", out);
  for (const auto& [path, layer] : peft.lora().lora_layers()) layer->unscale_layer();

  const std::map<std::string, Tensor> stored = read_tensors((fs::path(folder) / "deltas.safetensors").string());
  std::set<std::string> used;
  for (const Json& row : files.json.at("results")) compare_result(row, two, stored, used, out);
  for (const auto& [key, tensor] : stored)
    if (!used.contains(key)) out.failure("'" + key + "' is stored and belongs to no result");

  peft.set_adapter("a");
  peft.delete_adapter("a");
  const Json& after = files.json.at("after_delete_a");
  out.same("after_delete", peft.active_adapters() == after.at("active").get<std::vector<std::string>>() && peft.adapters() == after.at("left").get<std::vector<std::string>>(), "other adapters are left");
  two.compare("logits.after_delete_a", out);
  return out;
}

Comparison compare_two_ia3(const std::string& folder, const std::string& name) {
  NoGrad no_grad;
  Comparison out(name);
  const CaseFiles files(folder);
  TwoAdapters two(files);
  PeftModel& peft = two.peft;
  two.compare("logits.a", out);
  peft.set_adapter("b");
  two.compare("logits.b", out);
  peft.set_adapter(std::vector<std::string>{"a", "b"});
  two.compare("logits.a+b", out);
  peft.merge_adapter({"a", "b"});
  two.compare("logits.a+b", out);
  peft.unmerge_adapter();
  two.compare("logits.a+b", out);
  {
    const DisableAdapter off(peft);
    two.compare("base_logits", out);
  }
  TwoAdapters given(files);
  two.compare("logits.merge_and_unload.a+b", given.peft.merge_and_unload(false, {"a", "b"})->forward(files.input()).logits, out);

  const std::map<std::string, Tensor> stored = read_tensors((fs::path(folder) / "vectors.safetensors").string());
  std::set<std::string> used;
  for (const Json& row : files.json.at("results")) {
    const std::string result = row.at("name").get<std::string>(), prefix = result + "/";
    peft.add_weighted_adapter(row.at("adapters").get<std::vector<std::string>>(), row.at("weights").get<std::vector<double>>(), result);
    const auto& config = std::get<IA3Config>(peft.peft_config(result));
    out.same("config", config.target_modules.names() == row.at("target_modules").get<std::vector<std::string>>(), result + ": other target_modules");
    out.same("config", config.feedforward_modules.names() == row.at("feedforward_modules").get<std::vector<std::string>>(), result + ": other feedforward_modules");
    std::size_t count = 0;
    for (const auto& [key, slot] : peft.base_model->adapter_state(result)) {
      ++count;
      out.close("vectors", detach(slot->tensor), stored.contains(prefix + key) ? stored.at(prefix + key) : Tensor(), files.tolerance("vectors"));
    }
    for (const auto& [key, tensor] : stored)
      if (key.starts_with(prefix)) {
        used.insert(key);
        --count;
      }
    out.same("vectors", count == 0, result + ": other number of vectors");
    peft.set_adapter(result);
    two.compare("logits." + result, out);
  }
  out.same("vectors", used.size() == stored.size(), "stored vectors belong to no result");
  return out;
}

}  // namespace cambium::test
