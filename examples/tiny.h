// What the examples run on where no real model is at hand: small models of the real architectures with seeded random weights, and rows of made-up token ids.
#pragma once

#include <memory>
#include <string>

#include "cambium.h"

namespace tiny {

using namespace cambium;

inline bool asked_for(int argc, char** argv) { return argc > 1 && std::string(argv[1]) == "--short"; }

inline std::shared_ptr<PretrainedModel> llama() {
  return AutoModelForCausalLM::from_config(R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 128, "hidden_act": "silu", "rms_norm_eps": 1e-5, "eos_token_id": 2})", RandomKey{1});
}

inline std::shared_ptr<PretrainedModel> bert(int classes) {
  LoadOptions options;
  options.num_labels = classes;
  return AutoModelForSequenceClassification::from_config(R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64, "max_position_embeddings": 128, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0})", RandomKey{1}, options);
}

inline std::shared_ptr<PretrainedModel> t5() {
  return AutoModelForSeq2SeqLM::from_config(R"({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
    "num_heads": 4, "vocab_size": 64, "dropout_rate": 0.0, "feed_forward_proj": "relu", "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1})", RandomKey{1});
}

/// Rows that count up from a start: something that can be learned. The class of a row is the parity of its start.
inline Dataset rows(Task task, std::int64_t vocabulary = 64) {
  Dataset data;
  data.path = "made-up rows";
  data.kind = DataKind::tokens;
  data.task = task;
  if (task == Task::sequence_classification) data.label_names = {"even", "odd"};
  for (std::int64_t i = 0; i < 32; ++i) {
    Example row;
    row.line = i + 1;
    const std::int64_t start = (i * 7) % 32;
    for (std::int64_t t = 0; t < 5 + i % 4; ++t) row.ids.push_back((3 + start + t) % vocabulary);
    if (task == Task::sequence_classification) row.label = start % 2;
    else if (task == Task::seq2seq_lm) row.labels.assign(row.ids.rbegin(), row.ids.rend());
    else row.labels = row.ids;
    if (task == Task::causal_lm) row.labels.front() = -100;
    data.examples.push_back(std::move(row));
  }
  data.count();
  return data;
}

}  // namespace tiny
