// Where LoRA adapters go and with which options.
#include "peft/lora_model.h"

#include <algorithm>
#include <cmath>

#include "peft/targets.h"
#include "peft/trainable_tokens.h"

namespace cambium {

std::vector<std::pair<std::string, LoraLayer*>> LoraModel::lora_layers() const {
  std::vector<std::pair<std::string, LoraLayer*>> out;
  for (const auto& [path, layer] : adapter_layers())
    if (auto* lora = dynamic_cast<LoraLayer*>(layer)) out.emplace_back(path, lora);
  return out;
}

LayerTuner::Plan LoraModel::plan(PeftConfig& config) {
  auto& c = std::get<LoraConfig>(config);
  validate(c);
  if (!c.target_modules.given()) {
    const std::string& type = model->config().model_type;
    const std::optional<ModuleSelection> defaults = default_lora_targets(type);
    check<ConfigError>(defaults.has_value(), "LoraConfig: no default target_modules are known for architecture '", type, "': give target_modules");
    c.target_modules = *defaults;
  }
  resolve_all_linear(c.target_modules, c.task_type);
  if (!c.base_model_name_or_path) c.base_model_name_or_path = model->config().name_or_path;
  return {c.target_modules, c.exclude_modules, c.layers_to_transform, c.layers_pattern, c.modules_to_save.value_or(std::vector<std::string>{}), c.bias != "none"};
}

std::shared_ptr<AdapterLayer> LoraModel::wrap(const std::string&, std::shared_ptr<Layer> base, const PeftConfig&) const {
  if (auto matrix = std::dynamic_pointer_cast<LinearLike>(base)) return std::make_shared<LoraLinear>(std::move(matrix));
  return std::make_shared<LoraEmbedding>(std::move(base));
}

void LoraModel::add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const {
  auto* lora = dynamic_cast<LoraLayer*>(&layer);
  check<ConfigError>(lora != nullptr, "'", path, "' carries adapters of another kind (", layer.type_name(), ")");
  const auto& c = std::get<LoraConfig>(config);
  const auto* rank = find_pattern(c.rank_pattern, path);
  const auto* alpha = find_pattern(c.alpha_pattern, path);
  LoraLayerOptions o;
  o.r = rank ? rank->second : c.r;
  o.alpha = alpha ? alpha->second : c.lora_alpha;
  o.dropout = c.lora_dropout;
  o.use_rslora = c.use_rslora;
  o.use_dora = c.use_dora;
  o.lora_bias = c.lora_bias;
  o.init = c.init_lora_weights;
  o.keep_dtype = !options.autocast_adapter_dtype;
  lora->add_adapter(name, o, options.key.fold(path).fold(name));
  if (o.lora_bias && !lora->has_bias()) warn_once("lora_bias: '" + path + "' has no bias in the base: adapter '" + name + "' cannot be merged there");
  if (parse_lora_init(o.init).changes_base() && !lora->is_embedding())
    warn_once("init_lora_weights: adapter '" + name + "' took its part out of the base weights: without it they are not the base model's, also after unload() and delete_adapter()");
}

std::vector<TrainableTokens*> LoraModel::token_layers() const {
  std::vector<TrainableTokens*> out;
  for (const auto& [path, layer] : adapter_layers())
    if (auto* tokens = dynamic_cast<TrainableTokens*>(layer)) out.push_back(tokens);
  return out;
}

void LoraModel::make_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) {
  LayerTuner::make_adapter(name, config, options);
  const auto& c = std::get<LoraConfig>(config);
  const TokenIndices& indices = c.trainable_token_indices;
  if (!indices.given()) return;
  if (!indices.is_map()) {
    train_tokens(name, model->input_embedding_path(), indices.tokens(), !options.autocast_adapter_dtype);
    return;
  }
  for (const auto& [module, tokens] : indices.modules()) {
    std::vector<std::string> paths;
    model->visit([&, key = module](const std::string& path, Module&) {
      if (ends_with_component(path, key)) paths.push_back(path);
    });
    check<ConfigError>(!paths.empty(), "trainable_token_indices: no module of the base model is called '", module, "'");
    for (const std::string& path : paths) train_tokens(name, path, tokens, !options.autocast_adapter_dtype);
  }
}

void LoraModel::train_tokens(const std::string& name, const std::string& module, const std::vector<std::int64_t>& tokens, bool keep_dtype) {
  const auto wrapped = [&](const std::string& path, ChildSlot& slot, std::shared_ptr<TrainableTokens> table) {
    auto layer = std::dynamic_pointer_cast<TrainableTokens>(slot.module());
    if (!layer) {
      check<ConfigError>(AdapterLayer::supports(*slot.module()), "trainable_token_indices: '", path, "' is a ", slot.module()->type_name(),
                         ": expected an Embedding or a Linear that carries no other adapter and is not among modules_to_save");
      layer = std::make_shared<TrainableTokens>(std::dynamic_pointer_cast<Layer>(slot.module()), std::move(table));
      slot.replace(layer);
    }
    layer->set_enabled(enabled());
    return layer;
  };
  ChildSlot& slot = model->child(module);
  const std::shared_ptr<TrainableTokens> table = wrapped(module, slot, nullptr);
  if (table->has_adapter(name)) return;  // tied to one that came before
  table->add_adapter(name, tokens, keep_dtype);
  // Modules with the same weight, such as a tied head, use the same rows.
  std::vector<std::pair<std::string, ChildSlot*>> tied;
  model->visit_slots([&](const std::string& path, ChildSlot& other) {
    const std::shared_ptr<Module> held = other.module();
    if (!held || held == table || path.starts_with(module + ".")) return;
    const auto* adapted = dynamic_cast<const AdapterLayer*>(held.get());
    const bool inside_wrapper = dynamic_cast<const AdapterLayer*>(&other.owner()) != nullptr;
    if (inside_wrapper) return;
    bool same = adapted && adapted->weight().slot() == table->weight().slot();
    for (const Param* p : held->own_parameters()) same = same || p->slot() == table->weight().slot();
    if (same) tied.emplace_back(path, &other);
  });
  for (const auto& [path, other] : tied) {
    const std::shared_ptr<TrainableTokens> layer = wrapped(path, *other, table);
    if (!layer->has_adapter(name)) layer->add_adapter(name, tokens, keep_dtype);
  }
}

void LoraModel::check_activation(const std::vector<std::string>& names) const {
  for (const TrainableTokens* layer : token_layers()) layer->check_disjoint(names);
}

void LoraModel::adjust(PeftConfig& config, std::optional<bool> transposed_weights) {
  auto& c = std::get<LoraConfig>(config);
  adjust_fan_in_fan_out(c.fan_in_fan_out, transposed_weights);
  const auto unused = [&](const auto& pattern, const char* field) {
    for (const auto& entry : pattern) {
      bool used = false;
      model->visit([&](const std::string& path, Module& module) {
        used = used || ((supports(module) || dynamic_cast<AdapterLayer*>(&module) != nullptr) && find_pattern(std::vector{entry}, path) != nullptr);
      });
      if (!used) warn(concat_text(field, ": '", entry.first, "' matches no module"));
    }
  };
  unused(c.rank_pattern, "rank_pattern");
  unused(c.alpha_pattern, "alpha_pattern");
}

RescaleAdapterScale::RescaleAdapterScale(LoraModel& model, double factor) {
  check<ConfigError>(std::isfinite(factor), "rescale_adapter_scale: expected a finite factor");
  for (const auto& [path, layer] : model.lora_layers())
    for (const std::string& name : layer->active())
      if (layer->has_adapter(name)) {
        old_.push_back({layer, name, layer->scaling(name)});
        layer->set_scaling(name, factor * layer->scaling(name));
      }
}

RescaleAdapterScale::~RescaleAdapterScale() {
  for (const Old& old : old_) old.layer->set_scaling(old.adapter, old.scaling);
}

}  // namespace cambium
