// The table of model families, and what their configurations share.
#include "nn/models/registry.h"

#include <algorithm>

namespace cambium {

namespace {

constexpr ModelClass kBertClasses[] = {
    {Task::feature_extraction, "BertModel", "", "pooler."},
    {Task::sequence_classification, "BertForSequenceClassification", "bert", "classifier.", "bert.pooler."},
    {Task::token_classification, "BertForTokenClassification", "bert", "classifier."},
    {Task::question_answering, "BertForQuestionAnswering", "bert", "qa_outputs."},
};
constexpr std::string_view kBertHeads[] = {"classifier.", "qa_outputs.", "cls."};
constexpr std::string_view kPooler[] = {"pooler."};

constexpr ModelClass kGpt2Classes[] = {
    {Task::causal_lm, "GPT2LMHeadModel", "transformer"},
    {Task::sequence_classification, "GPT2ForSequenceClassification", "transformer", "score."},
    {Task::token_classification, "GPT2ForTokenClassification", "transformer", "classifier."},
    {Task::question_answering, "GPT2ForQuestionAnswering", "transformer", "qa_outputs."},
    {Task::feature_extraction, "GPT2Model", ""},
};
constexpr ModelClass kGptjClasses[] = {
    {Task::causal_lm, "GPTJForCausalLM", "transformer"},
    {Task::sequence_classification, "GPTJForSequenceClassification", "transformer", "score."},
    {Task::question_answering, "GPTJForQuestionAnswering", "transformer", "qa_outputs."},
    {Task::feature_extraction, "GPTJModel", ""},
};
constexpr ModelClass kFalconClasses[] = {
    {Task::causal_lm, "FalconForCausalLM", "transformer"},
    {Task::sequence_classification, "FalconForSequenceClassification", "transformer", "score."},
    {Task::token_classification, "FalconForTokenClassification", "transformer", "classifier."},
    {Task::question_answering, "FalconForQuestionAnswering", "transformer", "qa_outputs."},
    {Task::feature_extraction, "FalconModel", ""},
};
constexpr ModelClass kLlamaClasses[] = {
    {Task::causal_lm, "LlamaForCausalLM", "model"},
    {Task::sequence_classification, "LlamaForSequenceClassification", "model", "score."},
    {Task::token_classification, "LlamaForTokenClassification", "model", "score."},
    {Task::question_answering, "LlamaForQuestionAnswering", "transformer", "qa_outputs."},
    {Task::feature_extraction, "LlamaModel", ""},
};
constexpr ModelClass kMistralClasses[] = {
    {Task::causal_lm, "MistralForCausalLM", "model"},
    {Task::sequence_classification, "MistralForSequenceClassification", "model", "score."},
    {Task::token_classification, "MistralForTokenClassification", "model", "score."},
    {Task::question_answering, "MistralForQuestionAnswering", "model", "qa_outputs."},
    {Task::feature_extraction, "MistralModel", ""},
};
constexpr ModelClass kQwen2Classes[] = {
    {Task::causal_lm, "Qwen2ForCausalLM", "model"},
    {Task::sequence_classification, "Qwen2ForSequenceClassification", "model", "score."},
    {Task::token_classification, "Qwen2ForTokenClassification", "model", "score."},
    {Task::question_answering, "Qwen2ForQuestionAnswering", "transformer", "qa_outputs."},
    {Task::feature_extraction, "Qwen2Model", ""},
};
constexpr ModelClass kQwen3Classes[] = {
    {Task::causal_lm, "Qwen3ForCausalLM", "model"},
    {Task::sequence_classification, "Qwen3ForSequenceClassification", "model", "score."},
    {Task::token_classification, "Qwen3ForTokenClassification", "model", "score."},
    {Task::question_answering, "Qwen3ForQuestionAnswering", "transformer", "qa_outputs."},
    {Task::feature_extraction, "Qwen3Model", ""},
};

constexpr ModelClass kT5Classes[] = {
    {Task::seq2seq_lm, "T5ForConditionalGeneration", ""},
    {Task::feature_extraction, "T5Model", ""},
    {Task::feature_extraction, "T5EncoderModel", ""},
};
constexpr std::string_view kT5Heads[] = {"lm_head."};
constexpr std::string_view kT5Decoder[] = {"decoder."};

constexpr std::string_view kDecoderHeads[] = {"lm_head.", "score.", "classifier.", "qa_outputs.", "multiple_choice_head."};

constexpr ModelFamily kFamilies[] = {
    {"bert", kBertClasses, kBertHeads, kPooler, make_bert, initialize_bert},
    {"gpt2", kGpt2Classes, kDecoderHeads, {}, make_gpt2, initialize_gpt2},
    {"gptj", kGptjClasses, kDecoderHeads, {}, make_gptj, initialize_decoder},
    {"falcon", kFalconClasses, kDecoderHeads, {}, make_falcon, initialize_decoder},
    {"llama", kLlamaClasses, kDecoderHeads, {}, make_llama, initialize_decoder},
    {"mistral", kMistralClasses, kDecoderHeads, {}, make_llama, initialize_decoder},
    {"qwen2", kQwen2Classes, kDecoderHeads, {}, make_llama, initialize_decoder},
    {"qwen3", kQwen3Classes, kDecoderHeads, {}, make_llama, initialize_decoder},
    {"t5", kT5Classes, kT5Heads, kT5Decoder, make_t5, initialize_t5, adapt_t5_config, kT5NoFloat16},
};

void add(std::string& list, std::string_view name) { list += (list.empty() ? "" : ", ") + std::string(name); }

/// Names by index from id2label, or as many as num_labels says.
void read_labels(const ConfigReader& config, ModelConfig& out) {
  out.num_labels = config.size({"num_labels"}, 2);
  if (const Json* names = config.find("id2label")) {
    check<ConfigError>(names->is_object() && !names->empty(), config.where(), ": 'id2label': expected an object of names by number");
    out.label_names.resize(names->size());
    for (std::size_t i = 0; i < names->size(); ++i) {
      const auto found = names->find(std::to_string(i));
      check<ConfigError>(found != names->end() && found->is_string(), config.where(), ": 'id2label': expected names of 0 to ", names->size() - 1, ", found none of ", i);
      out.label_names[i] = found->get<std::string>();
    }
    const auto count = static_cast<std::int64_t>(names->size());
    check<ConfigError>(!config.has("num_labels") || out.num_labels == count, config.where(), ": 'num_labels' is ", out.num_labels, ", but 'id2label' names ", count);
    out.num_labels = count;
  }
  out.problem_type = config.text("problem_type", "");
  const std::string_view known[] = {"", "regression", "single_label_classification", "multi_label_classification"};
  check<ConfigError>(std::find(std::begin(known), std::end(known), out.problem_type) != std::end(known), config.where(), ": 'problem_type': expected ", known[1], ", ", known[2],
                     " or ", known[3], ", found '", out.problem_type, "'");
}

}  // namespace

std::string_view name_of(Task task) {
  switch (task) {
    case Task::causal_lm: return "causal_lm";
    case Task::seq2seq_lm: return "seq2seq_lm";
    case Task::sequence_classification: return "sequence_classification";
    case Task::token_classification: return "token_classification";
    case Task::question_answering: return "question_answering";
    case Task::feature_extraction: return "feature_extraction";
  }
  fail<Error>("name_of: this is no task");
}

std::span<const ModelFamily> model_families() { return kFamilies; }

const ModelFamily& family_of(const ConfigReader& config) {
  const std::string type = config.text("model_type", "");
  std::string known;
  for (const ModelFamily& family : kFamilies) {
    if (family.model_type == type) return family;
    add(known, family.model_type);
  }
  fail<ConfigError>(config.where(), ": model_type '", type, "' is not supported: ", known, " are");
}

const ModelClass& class_of(const ModelFamily& family, std::optional<Task> task, const ConfigReader& config) {
  const std::vector<std::string> architectures = config.texts("architectures");
  const ModelClass* first = nullptr;
  std::string known;
  for (const ModelClass& row : family.classes) {
    add(known, concat_text(name_of(row.task), " (", row.architecture, ")"));
    if (task && row.task != *task) continue;
    if (std::find(architectures.begin(), architectures.end(), row.architecture) != architectures.end()) return row;
    if (first == nullptr) first = &row;
  }
  check<ConfigError>(first != nullptr, config.where(), ": ", family.model_type, " models are not there for ", name_of(task.value_or(Task::causal_lm)), ": they are for ", known);
  check<ConfigError>(task || architectures.empty(), config.where(), ": 'architectures': ", architectures, " does not tell which task the model is for: name one of ", known);
  return *first;
}

void read_common(const ConfigReader& config, const std::string& json, ModelConfig& out, bool encoder_decoder) {
  out.json = json;
  out.model_type = config.text("model_type", "");
  out.name_or_path = config.text("_name_or_path", "");
  out.vocab_size = config.size({"vocab_size"});
  out.hidden_size = config.size({"hidden_size", "n_embd", "d_model"});
  out.num_hidden_layers = config.size({"num_hidden_layers", "n_layer", "num_layers"});
  out.num_attention_heads = config.size({"num_attention_heads", "n_head", "num_heads"});
  out.num_key_value_heads = config.size({"num_key_value_heads"}, out.num_attention_heads);
  out.max_position_embeddings = config.size({"max_position_embeddings", "n_positions", "n_ctx"}, 2048);
  check<ConfigError>(out.num_hidden_layers <= 10000, config.where(), ": 'num_hidden_layers': expected at most 10000, found ", out.num_hidden_layers);
  check<ConfigError>(out.num_attention_heads % out.num_key_value_heads == 0, config.where(), ": 'num_key_value_heads': ", out.num_attention_heads,
                     " attention heads are no multiple of ", out.num_key_value_heads);
  if (config.has("head_dim") || config.has("d_kv")) {
    out.head_dim = config.size({"head_dim", "d_kv"});
  } else {
    check<ConfigError>(out.hidden_size % out.num_attention_heads == 0, config.where(), ": 'hidden_size': ", out.hidden_size, " is no multiple of ",
                       out.num_attention_heads, " heads");
    out.head_dim = out.hidden_size / out.num_attention_heads;
  }
  out.bos_token_id = config.token("bos_token_id");
  out.pad_token_id = config.token("pad_token_id");
  out.eos_token_ids = config.tokens("eos_token_id");
  out.decoder_start_token_id = config.token("decoder_start_token_id");
  read_labels(config, out);
  if (out.pad_token_id && *out.pad_token_id >= out.vocab_size)
    fail<ConfigError>(config.where(), ": 'pad_token_id': expected an id below ", out.vocab_size, ", found ", *out.pad_token_id);
  config.refuse_unless("quantization_config", Json());
  config.refuse_unless("add_cross_attention", false);
  if (!encoder_decoder) config.refuse_unless("is_encoder_decoder", false);
}

}  // namespace cambium
