// Names of tensors in GGUF files.
#include "nn/models/gguf_names.h"

namespace cambium {

namespace {

using NamePair = std::pair<std::string_view, std::string_view>;

constexpr NamePair kLlama[] = {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr NamePair kLlamaBlock[] = {
    {"attn_norm", "input_layernorm"},       {"attn_q", "self_attn.q_proj"},         {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},         {"attn_output", "self_attn.o_proj"},    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},    {"ffn_norm", "post_attention_layernorm"}, {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},              {"ffn_down", "mlp.down_proj"},
};
constexpr NamePair kGpt2[] = {{"token_embd", "transformer.wte"}, {"position_embd", "transformer.wpe"}, {"output_norm", "transformer.ln_f"}, {"output", "lm_head"}};
constexpr NamePair kGpt2Block[] = {
    {"attn_norm", "ln_1"}, {"attn_qkv", "attn.c_attn"}, {"attn_output", "attn.c_proj"}, {"ffn_norm", "ln_2"}, {"ffn_up", "mlp.c_fc"}, {"ffn_down", "mlp.c_proj"},
};

constexpr GgufArchitecture kArchitectures[] = {
    {"llama", "llama", "model.layers.", true, false, kLlama, kLlamaBlock},
    {"qwen2", "qwen2", "model.layers.", false, false, kLlama, kLlamaBlock},
    {"qwen3", "qwen3", "model.layers.", false, false, kLlama, kLlamaBlock},
    {"gpt2", "gpt2", "transformer.h.", false, true, kGpt2, kGpt2Block},
};

std::optional<std::string> translate(std::span<const NamePair> names, std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || (name.substr(dot) != ".weight" && name.substr(dot) != ".bias")) return {};
  for (const auto& [from, to] : names)
    if (from == name.substr(0, dot)) return std::string(to) + std::string(name.substr(dot));
  return {};
}

}  // namespace

const GgufArchitecture* gguf_architecture(std::string_view name) {
  for (const GgufArchitecture& architecture : kArchitectures)
    if (architecture.name == name) return &architecture;
  return nullptr;
}

std::string known_gguf_architectures() {
  std::string out;
  for (const GgufArchitecture& architecture : kArchitectures) out += (out.empty() ? "" : ", ") + std::string(architecture.name);
  return out;
}

std::optional<std::string> huggingface_name(const GgufArchitecture& architecture, std::string_view gguf_name) {
  if (!gguf_name.starts_with("blk.")) return translate(architecture.names, gguf_name);
  gguf_name.remove_prefix(4);
  const std::size_t dot = gguf_name.find('.');
  if (dot == std::string_view::npos || dot == 0) return {};
  const std::string_view number = gguf_name.substr(0, dot);
  if (number.find_first_not_of("0123456789") != std::string_view::npos || (number.size() > 1 && number[0] == '0')) return {};
  const std::optional<std::string> rest = translate(architecture.block_names, gguf_name.substr(dot + 1));
  if (!rest) return {};
  return std::string(architecture.block) + std::string(number) + "." + *rest;
}

const GgufArchitecture* gguf_architecture_of_model(std::string_view model_type) {
  for (const GgufArchitecture& architecture : kArchitectures)
    if (architecture.model_type == model_type) return &architecture;
  return model_type == "mistral" ? gguf_architecture("llama") : nullptr;
}

std::optional<std::string> gguf_name(const GgufArchitecture& architecture, std::string_view name) {
  const auto translated = [](std::span<const NamePair> names, std::string_view from) -> std::optional<std::string> {
    const std::size_t dot = from.rfind('.');
    if (dot == std::string_view::npos || (from.substr(dot) != ".weight" && from.substr(dot) != ".bias")) return {};
    for (const auto& [to, known] : names)
      if (known == from.substr(0, dot)) return std::string(to) + std::string(from.substr(dot));
    return {};
  };
  if (!name.starts_with(architecture.block)) return translated(architecture.names, name);
  name.remove_prefix(architecture.block.size());
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos || dot == 0 || name.substr(0, dot).find_first_not_of("0123456789") != std::string_view::npos) return {};
  const std::optional<std::string> rest = translated(architecture.block_names, name.substr(dot + 1));
  if (!rest) return {};
  return "blk." + std::string(name.substr(0, dot)) + "." + *rest;
}

}  // namespace cambium
