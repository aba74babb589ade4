// PEFT's tables of default targets per architecture (peft/utils/constants.py).
#include <unordered_map>

#include "peft/targets.h"

namespace cambium {

std::optional<ModuleSelection> default_lora_targets(const std::string& model_type) {
  static const std::unordered_map<std::string, ModuleSelection> table = [] {
    std::unordered_map<std::string, ModuleSelection> out;
    const auto row = [&](std::initializer_list<const char*> types, const ModuleSelection& targets) {
      for (const char* type : types) out.emplace(type, targets);
    };
    row({"t5", "mt5"}, {"q", "v"});
    row({"bart", "gptj", "gpt_neo", "llama", "llama4", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "opt", "stablelm"}, {"q_proj", "v_proj"});
    row({"gpt2", "gpt_bigcode"}, {"c_attn"});
    row({"gpt_neox", "falcon", "RefinedWeb", "RefinedWebModel", "bloom", "chatglm"}, {"query_key_value"});
    row({"gemma4"}, ".*language_model\\..*\\.(q_proj|v_proj)");
    row({"phi"}, {"q_proj", "v_proj", "fc1", "fc2"});
    row({"mpt"}, {"Wqkv"});
    row({"bert", "roberta", "xlm-roberta", "electra", "layoutlm"}, {"query", "value"});
    row({"deberta"}, {"in_proj"});
    row({"deberta-v2"}, {"query_proj", "value_proj"});
    row({"codegen"}, {"qkv_proj"});
    row({"btlm"}, {"c_proj", "c_attn"});
    row({"blip-2"}, {"q", "v", "q_proj", "v_proj"});
    row({"rwkv"}, {"key", "value", "receptance", "output"});
    row({"nemotron_h"}, {"q_proj", "k_proj", "v_proj", "o_proj"});
    return out;
  }();
  const auto found = table.find(model_type);
  return found == table.end() ? std::nullopt : std::optional(found->second);
}

std::optional<IA3Targets> default_ia3_targets(const std::string& model_type) {
  static const std::unordered_map<std::string, IA3Targets> table = [] {
    using Names = std::vector<std::string>;
    std::unordered_map<std::string, IA3Targets> out;
    const auto row = [&](std::initializer_list<const char*> types, Names targets, Names feedforward) {
      for (const char* type : types) out.emplace(type, IA3Targets{ModuleSelection(targets), ModuleSelection(feedforward)});
    };
    row({"t5"}, {"k", "v", "wo"}, {"wo"});
    row({"mt5"}, {"k", "v", "wi_1"}, {});
    row({"bart"}, {"q_proj", "v_proj", "fc2"}, {"fc2"});
    row({"gpt2", "gpt_bigcode"}, {"c_attn", "mlp.c_proj"}, {"mlp.c_proj"});
    row({"gptj"}, {"q_proj", "v_proj", "fc_out"}, {"fc_out"});
    row({"gpt_neox", "falcon", "RefinedWeb", "RefinedWebModel"}, {"query_key_value", "dense_4h_to_h"}, {"dense_4h_to_h"});
    row({"gpt_neo"}, {"q_proj", "v_proj", "c_proj"}, {"c_proj"});
    row({"llama", "mistral"}, {"k_proj", "v_proj", "down_proj"}, {"down_proj"});
    row({"llama4", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"}, {"q_proj", "v_proj", "down_proj"}, {"down_proj"});
    row({"mixtral"}, {"k_proj", "v_proj", "w2"}, {"w2"});
    row({"phi"}, {"q_proj", "v_proj", "fc2"}, {"fc2"});
    row({"bloom"}, {"query_key_value", "mlp.dense_4h_to_h"}, {"mlp.dense_4h_to_h"});
    row({"opt"}, {"q_proj", "k_proj", "fc2"}, {"fc2"});
    row({"bert", "roberta"}, {"key", "value", "output.dense"}, {"output.dense"});
    row({"deberta"}, {"in_proj", "output.dense"}, {"output.dense"});
    row({"deberta-v2"}, {"key_proj", "value_proj", "output.dense"}, {"output.dense"});
    return out;
  }();
  const auto found = table.find(model_type);
  return found == table.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace cambium
