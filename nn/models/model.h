// What all pretrained models have in common: input, output, configuration, loading.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/module.h"
#include "nn/past.h"

namespace cambium {

class KvCache;  // nn/kv_cache.h

/// What a model is for; decides its head and its loss.
enum class Task { causal_lm, seq2seq_lm, sequence_classification, token_classification, question_answering, feature_extraction };
std::string_view name_of(Task task);  ///< "causal_lm", …

/// Input of a model; undefined members are absent. B rows of T tokens. A member that a model has no use for is an error, never ignored.
struct ModelInput {
  // Integers and masks may lie on the host: the model copies them to its device. Everything else has to be there.
  Tensor input_ids;       ///< int64 (B, T), or
  Tensor inputs_embeds;   ///< float (B, T, C)
  Tensor attention_mask;  ///< bool or int64 (B, T): which tokens are real; absent: all. It covers what the cache holds, not the past
  Tensor position_ids;    ///< int64 (B, T); absent: 0..T-1 after what the past and the cache hold
  Tensor token_type_ids;  ///< int64 (B, T): segments, for models that have them; absent: 0
  Tensor decoder_input_ids;       ///< int64 (B, U) of an encoder-decoder; absent: the labels, shifted right
  Tensor decoder_attention_mask;  ///< bool or int64 (B, U)
  Tensor encoder_output;  ///< float (B, T, C): what the encoder gave before; it does not run again
  Tensor labels;          ///< language models: int64 (B, T) or (B, U), -100 where there is none; a decoder-only model shifts them, as Hugging Face does.
                          ///< Tokens: (B, T). Sequences: int64 (B), or float (B) or (B, classes) for regression and several labels
  Tensor start_positions, end_positions;  ///< int64 (B): the answer's span
  Tensor starts;          ///< int32 (S+1): sequences packed into one row (B = 1); positions start again at each
  KvCache* cache = nullptr;
  const Past* past = nullptr;      ///< stands before every row; positions count it
  bool want_past = false;          ///< causal models, B = 1: the keys and values of these tokens as a Past
  bool want_logits = true;         ///< false: with labels, the loss is made without whole logits
  bool want_hidden_states = false;
  bool last_logits_only = false;   ///< logits of the last position only: (B, 1, V)
  std::optional<double> label_count;  ///< what the sum of losses is divided by; absent: the labelled targets of this input
};

struct ModelOutput {
  Tensor loss;                        ///< f32 scalar, mean over labelled targets; undefined without labels
  std::int64_t labelled = 0;          ///< how many targets that were
  Tensor logits;                      ///< (B, T, V); classes (B, N) or (B, T, N); features (B, T, C)
  Tensor start_logits, end_logits;    ///< (B, T), of question answering
  std::vector<Tensor> hidden_states;  ///< 0: embeddings, …, last: after the final norm. Of the decoder in an encoder-decoder
  std::vector<Tensor> encoder_hidden_states;  ///< empty when the encoder did not run
  Tensor encoder_output;              ///< (B, T, C), of an encoder-decoder
  Tensor pooled;                      ///< (B, C), or (S, C) of packed sequences: of a bare model with a pooler
  Past past;                          ///< if wanted
};

/// The common part of config.json or of a GGUF's metadata, in Hugging Face's terms. Families keep their own fields.
struct ModelConfig {
  std::string model_type;      ///< "llama", "gpt2", …
  std::string name_or_path;
  std::string json;            ///< config.json as read (GGUF: the equivalent), for saving merged models
  std::int64_t vocab_size = 0, hidden_size = 0, num_hidden_layers = 0, num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0,
               intermediate_size = 0, max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  std::optional<std::int64_t> bos_token_id, pad_token_id, decoder_start_token_id;
  std::vector<std::int64_t> eos_token_ids;
  std::int64_t num_labels = 2;              ///< of classification heads
  std::vector<std::string> label_names;     ///< by index; empty: LABEL_0, …
  std::string problem_type;                 ///< regression, single_label_classification, multi_label_classification; empty: told by the labels
};

class PretrainedModel : public Module {
 public:
  virtual const ModelConfig& config() const = 0;
  virtual Task task() const = 0;
  virtual ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const = 0;
  /// The module that turns ids into embeddings and the one that gives logits (empty if there is none): dotted paths below this model.
  virtual std::string input_embedding_path() const = 0;
  virtual std::string output_embedding_path() const = 0;
  /// Whether what a position becomes depends only on those before it, so that a prompt can be computed once for all rows.
  virtual bool is_causal() const = 0;
  virtual std::unique_ptr<KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const = 0;

  /// Layers keep only their input and run again in the backward pass: less memory, about half as much work again.
  void set_gradient_checkpointing(bool on) { gradient_checkpointing_ = on; }
  bool gradient_checkpointing() const { return gradient_checkpointing_; }
  /// Parameters of a head that the files did not hold and that were initialised instead.
  const std::vector<std::string>& newly_initialized() const { return newly_initialized_; }
  void set_newly_initialized(std::vector<std::string> names) { newly_initialized_ = std::move(names); }

 private:
  bool gradient_checkpointing_ = false;
  std::vector<std::string> newly_initialized_;
};

struct LoadOptions {
  std::optional<DType> dtype;  ///< absent: as stored (block formats of GGUF: f32)
  Device device;
  bool meta = false;           ///< shapes without values, to count or plan with; of a folder only config.json is read
  // Of classification heads, instead of what the configuration says; save_pretrained writes them.
  std::optional<std::int64_t> num_labels;
  std::vector<std::string> label_names;  ///< by index; they also say how many
  std::string problem_type;
  RandomKey head_key;                    ///< of a head that the files do not hold: N(0, initializer_range), biases 0
  bool ignore_mismatched_sizes = false;  ///< a head of another size in the files is initialised instead of an error
};

/// Loads a Hugging Face folder (config.json with model.safetensors, or shards with an index) or a .gguf file for a task; absent: the one its `architectures` name.
/// A checkpoint of the bare model or of another task serves as well: heads of other tasks are left out, a missing head of this one is initialised and named in
/// newly_initialized() (a language model's head never is: without it the file is not one). Any other tensor missing or left over is a NameError. Parameters do
/// not require gradients.
std::shared_ptr<PretrainedModel> load_pretrained(const std::string& path, std::optional<Task> task = {}, const LoadOptions& options = {});
/// A model of this configuration with seeded random weights that require gradients, for training from scratch.
std::shared_ptr<PretrainedModel> model_from_config(const std::string& config_json, std::optional<Task> task, RandomKey key, const LoadOptions& options = {});

/// The names that users of transformers know.
template <Task kTask>
struct AutoModelFor {
  static std::shared_ptr<PretrainedModel> from_pretrained(const std::string& path, const LoadOptions& options = {}) { return load_pretrained(path, kTask, options); }
  static std::shared_ptr<PretrainedModel> from_config(const std::string& config_json, RandomKey key, const LoadOptions& options = {}) {
    return model_from_config(config_json, kTask, key, options);
  }
};
using AutoModel = AutoModelFor<Task::feature_extraction>;
using AutoModelForCausalLM = AutoModelFor<Task::causal_lm>;
using AutoModelForSeq2SeqLM = AutoModelFor<Task::seq2seq_lm>;
using AutoModelForSequenceClassification = AutoModelFor<Task::sequence_classification>;
using AutoModelForTokenClassification = AutoModelFor<Task::token_classification>;
using AutoModelForQuestionAnswering = AutoModelFor<Task::question_answering>;

/// Writes config.json and model.safetensors (shards with an index above `max_shard_bytes`) as Hugging Face does.
void save_pretrained(const PretrainedModel& model, const std::string& folder, std::int64_t max_shard_bytes = 5'000'000'000);

}  // namespace cambium
