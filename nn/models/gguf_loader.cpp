// GGUF files: their metadata as a config.json, their tensors under Hugging Face's names.
#include <algorithm>

#include "nn/models/loading.h"
#include "tensor/gguf.h"

namespace cambium {

namespace {

/// What has to be done to a tensor on its way from the file's layout to Hugging Face's.
enum class Change { none, unpermute_query, unpermute_key, transpose };
struct NameRow {
  std::string_view gguf, huggingface;  ///< %d stands for the number of the layer
  Change change = Change::none;
};

// Converters for llama.cpp reorder the rows of q and k of architecture "llama" so that rotary pairs are neighbours; the other architectures keep the halves.
constexpr NameRow kLlamaNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"}, {"output_norm.weight", "model.norm.weight"}, {"output.weight", "lm_head.weight"},
    {"blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight"}, {"blk.%d.ffn_norm.weight", "model.layers.%d.post_attention_layernorm.weight"},
    {"blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight", Change::unpermute_query}, {"blk.%d.attn_q.bias", "model.layers.%d.self_attn.q_proj.bias", Change::unpermute_query},
    {"blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight", Change::unpermute_key}, {"blk.%d.attn_k.bias", "model.layers.%d.self_attn.k_proj.bias", Change::unpermute_key},
    {"blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight"}, {"blk.%d.attn_v.bias", "model.layers.%d.self_attn.v_proj.bias"},
    {"blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight"}, {"blk.%d.attn_output.bias", "model.layers.%d.self_attn.o_proj.bias"},
    {"blk.%d.attn_q_norm.weight", "model.layers.%d.self_attn.q_norm.weight"}, {"blk.%d.attn_k_norm.weight", "model.layers.%d.self_attn.k_norm.weight"},
    {"blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight"}, {"blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight"}, {"blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight"},
};
constexpr NameRow kGpt2Names[] = {
    {"token_embd.weight", "transformer.wte.weight"}, {"position_embd.weight", "transformer.wpe.weight"}, {"output.weight", "lm_head.weight"},
    {"output_norm.weight", "transformer.ln_f.weight"}, {"output_norm.bias", "transformer.ln_f.bias"},
    {"blk.%d.attn_norm.weight", "transformer.h.%d.ln_1.weight"}, {"blk.%d.attn_norm.bias", "transformer.h.%d.ln_1.bias"},
    {"blk.%d.ffn_norm.weight", "transformer.h.%d.ln_2.weight"}, {"blk.%d.ffn_norm.bias", "transformer.h.%d.ln_2.bias"},
    {"blk.%d.attn_qkv.weight", "transformer.h.%d.attn.c_attn.weight", Change::transpose}, {"blk.%d.attn_qkv.bias", "transformer.h.%d.attn.c_attn.bias"},
    {"blk.%d.attn_output.weight", "transformer.h.%d.attn.c_proj.weight", Change::transpose}, {"blk.%d.attn_output.bias", "transformer.h.%d.attn.c_proj.bias"},
    {"blk.%d.ffn_up.weight", "transformer.h.%d.mlp.c_fc.weight", Change::transpose}, {"blk.%d.ffn_up.bias", "transformer.h.%d.mlp.c_fc.bias"},
    {"blk.%d.ffn_down.weight", "transformer.h.%d.mlp.c_proj.weight", Change::transpose}, {"blk.%d.ffn_down.bias", "transformer.h.%d.mlp.c_proj.bias"},
};

/// The numbers of a model under the prefix of its architecture.
class Metadata {
 public:
  Metadata(const GgufFile& file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}
  std::int64_t integer(const std::string& key) const { return file_.value(prefix_ + key).integer(); }
  bool has(const std::string& key) const { return file_.has(prefix_ + key); }
  double number(const std::string& key) const { return file_.value(prefix_ + key).number(); }
  std::string text(const std::string& key) const { return std::string(file_.value(prefix_ + key).string()); }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

Json llama_config(const GgufFile& file, const Metadata& m, const std::string& type) {
  Json c;
  c["architectures"] = {type == "llama" ? "LlamaForCausalLM" : type == "qwen2" ? "Qwen2ForCausalLM" : "Qwen3ForCausalLM"};
  c["model_type"] = type;
  c["vocab_size"] = file.info("token_embd.weight").shape[0];
  c["hidden_size"] = m.integer("embedding_length");
  c["num_hidden_layers"] = m.integer("block_count");
  c["intermediate_size"] = m.integer("feed_forward_length");
  c["num_attention_heads"] = m.integer("attention.head_count");
  c["num_key_value_heads"] = m.has("attention.head_count_kv") ? m.integer("attention.head_count_kv") : m.integer("attention.head_count");
  if (m.has("attention.key_length")) c["head_dim"] = m.integer("attention.key_length");
  c["max_position_embeddings"] = m.integer("context_length");
  c["rms_norm_eps"] = m.number("attention.layer_norm_rms_epsilon");
  c["hidden_act"] = "silu";
  c["rope_theta"] = m.has("rope.freq_base") ? m.number("rope.freq_base") : 10000.0;
  c["tie_word_embeddings"] = !file.contains("output.weight");
  if (type == "llama" && file.contains("blk.0.attn_q.bias")) c["attention_bias"] = true;
  const std::string scaling = m.has("rope.scaling.type") ? m.text("rope.scaling.type") : "none";
  if (file.contains("rope_freqs.weight")) c["rope_scaling"] = Json{{"rope_type", "factors"}, {"frequency_factors", file.tensor("rope_freqs.weight", DType::f32).to_vector<double>()}};
  else if (scaling == "linear") c["rope_scaling"] = Json{{"rope_type", "linear"}, {"factor", m.number("rope.scaling.factor")}};
  else check<ConfigError>(scaling == "none", file.path(), ": rope.scaling.type: none and linear are supported, found '", scaling, "'");
  if (m.has("attention.sliding_window") && m.integer("attention.sliding_window") > 0) {
    c["layer_types"] = std::vector<std::string>(static_cast<std::size_t>(m.integer("block_count")), "sliding_attention");
    c["sliding_window"] = m.integer("attention.sliding_window");
  }
  return c;
}

Json gpt2_config(const GgufFile& file, const Metadata& m) {
  Json c;
  c["architectures"] = {"GPT2LMHeadModel"};
  c["model_type"] = "gpt2";
  c["vocab_size"] = file.info("token_embd.weight").shape[0];
  c["n_embd"] = m.integer("embedding_length");
  c["n_layer"] = m.integer("block_count");
  c["n_head"] = m.integer("attention.head_count");
  c["n_inner"] = m.integer("feed_forward_length");
  c["n_positions"] = m.integer("context_length");
  c["layer_norm_epsilon"] = m.number("attention.layer_norm_epsilon");
  c["activation_function"] = "gelu_new";
  for (const char* rate : {"attn_pdrop", "embd_pdrop", "resid_pdrop"}) c[rate] = 0.1;  // the file does not say; GPT-2's own
  c["tie_word_embeddings"] = true;
  return c;
}

/// The name in the model, with the number of the layer put in; nothing if the row is another tensor's.
std::optional<std::string> renamed(std::string_view name, const NameRow& row) {
  const std::size_t hole = row.gguf.find("%d");
  if (hole == std::string_view::npos) return name == row.gguf ? std::optional<std::string>(row.huggingface) : std::nullopt;
  const std::string_view head = row.gguf.substr(0, hole), tail = row.gguf.substr(hole + 2);
  if (!name.starts_with(head) || !name.ends_with(tail) || name.size() <= head.size() + tail.size()) return std::nullopt;
  const std::string_view number = name.substr(head.size(), name.size() - head.size() - tail.size());
  if (!std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; })) return std::nullopt;
  const std::size_t place = row.huggingface.find("%d");
  return std::string(row.huggingface.substr(0, place)) + std::string(number) + std::string(row.huggingface.substr(place + 2));
}

/// Rows of a head lie as pairs (j, 0), (j, 1); Hugging Face has all of (·, 0) before all of (·, 1).
Tensor unpermuted(const Tensor& x, std::int64_t heads, const std::string& name) {
  check<ShapeError>(x.size(0) % (2 * heads) == 0, "GGUF: '", name, "': ", x.size(0), " rows cannot be ", heads, " heads of pairs");
  const std::int64_t half = x.size(0) / heads / 2, width = x.rank() == 1 ? 1 : x.size(1);
  const Tensor pairs = reshape(x, {heads, half, 2, width});
  return reshape(contiguous(transpose(pairs, 1, 2)), std::span(x.shape().begin(), static_cast<std::size_t>(x.rank())));
}

}  // namespace

std::shared_ptr<PretrainedModel> load_gguf(const std::string& path, const LoadOptions& options) {
  NoGrad no_grad;
  auto file = std::make_shared<GgufFile>(path);
  if (const auto type = file->find("general.type"); type && type->string() != "model")
    fail<ConfigError>(path, ": general.type: expected a model, found '", type->string(), "'");
  const std::string architecture(file->value("general.architecture").string());
  const Metadata metadata(*file, architecture);
  const bool gpt2 = architecture == "gpt2";
  check<ConfigError>(gpt2 || architecture == "llama" || architecture == "qwen2" || architecture == "qwen3", path, ": general.architecture: llama, qwen2, qwen3 and gpt2 are supported, found '", architecture, "'");
  Json config = gpt2 ? gpt2_config(*file, metadata) : llama_config(*file, metadata, architecture);
  for (const auto& [from, to] : {std::pair{"tokenizer.ggml.bos_token_id", "bos_token_id"}, {"tokenizer.ggml.eos_token_id", "eos_token_id"}, {"tokenizer.ggml.padding_token_id", "pad_token_id"}})
    if (const auto id = file->find(from)) config[to] = id->integer();

  const std::int64_t heads = metadata.integer("attention.head_count");
  const std::int64_t key_heads = metadata.has("attention.head_count_kv") ? metadata.integer("attention.head_count_kv") : heads;
  check<ConfigError>(heads > 0 && key_heads > 0, path, ": attention.head_count: expected positive numbers, found ", heads, " and ", key_heads);
  const std::span<const NameRow> names = gpt2 ? std::span<const NameRow>(kGpt2Names) : std::span<const NameRow>(kLlamaNames);
  // Blocks become float32, and what is stored as float32 beside them stays so; files of one 16-bit type keep it.
  LoadOptions resolved = options;
  if (!resolved.dtype) {
    const GgmlType embeddings = file->info("token_embd.weight").type;
    resolved.dtype = embeddings == GgmlType::f16 ? DType::f16 : embeddings == GgmlType::bf16 ? DType::bf16 : DType::f32;
  }
  TensorSource source;
  source.where = path;
  for (const GgufTensorInfo& info : file->tensors()) {
    const std::string name(info.name);
    if (name == "rope_freqs.weight") continue;  // read above
    const auto row = std::find_if(names.begin(), names.end(), [&](const NameRow& r) { return renamed(name, r).has_value(); });
    if (row == names.end()) {
      source.tensors.emplace(name, [file, name] { return file->tensor(name); });  // told as unexpected
      continue;
    }
    Change change = row->change;
    if (architecture != "llama" && (change == Change::unpermute_query || change == Change::unpermute_key)) change = Change::none;
    source.tensors.emplace(*renamed(name, *row), [file, name, change, heads, key_heads, dtype = *resolved.dtype] {
      const Tensor x = file->tensor(name, dtype);
      switch (change) {
        case Change::unpermute_query: return unpermuted(x, heads, name);
        case Change::unpermute_key: return unpermuted(x, key_heads, name);
        case Change::transpose: return contiguous(transpose(x));
        default: return x;
      }
    });
  }
  return load_model(config, config.dump(2), path, std::move(source), resolved);
}

}  // namespace cambium
