// Loading for any task: bare checkpoints and those of other tasks, missing heads, labels of one's own, spellings of old files, what only T5's files tell, counts.
#include <doctest/doctest.h>

#include <fstream>

#include "tensor/json.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_task_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

/// A folder with this configuration and these tensors.
struct Folder : TemporaryFolder {
  Folder(const std::string& config, const std::vector<NamedTensor>& tensors) {
    write("config.json", config);
    save_safetensors(file("model.safetensors"), tensors);
  }
};

std::vector<NamedTensor> bert_tensors(Task task, const std::string& more = "") { return model_for(task, bert_config(more))->state_dict(); }

ModelInput tokens() {
  ModelInput input;
  input.input_ids = int_rows({3, 14, 15, 9});
  return input;
}

std::string text_of(const std::string& path) { return read_all(path); }

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("a bare checkpoint serves every task: the head is initialised by the key, and named") {
  NoGrad no_grad;
  const auto bare = model_for(Task::feature_extraction, bert_config());
  const Folder folder(bert_config(R"(, "architectures": ["BertModel"])"), bare->state_dict());
  CHECK(load_pretrained(folder.path())->task() == Task::feature_extraction);
  CHECK(load_pretrained(folder.path())->newly_initialized().empty());
  const auto sequence = AutoModelForSequenceClassification::from_pretrained(folder.path());
  CHECK(sequence->newly_initialized() == Names{"classifier.bias", "classifier.weight"});
  CHECK_FALSE(sequence->named_parameters().back().second->tensor.requires_grad());
  CHECK(AutoModelForTokenClassification::from_pretrained(folder.path())->newly_initialized() == Names{"classifier.bias", "classifier.weight"});
  CHECK(AutoModelForQuestionAnswering::from_pretrained(folder.path())->newly_initialized() == Names{"qa_outputs.bias", "qa_outputs.weight"});
  ModelInput wanted = tokens();
  wanted.want_hidden_states = true;
  CHECK(difference_of(sequence->forward(wanted).hidden_states.back(), bare->forward(wanted).logits) == 0.0);

  const auto value = [&](RandomKey key) { return AutoModelForSequenceClassification::from_pretrained(folder.path(), {.head_key = key})->forward(tokens()).logits; };
  CHECK(difference_of(value({1, 0}), value({1, 0})) == 0.0);
  CHECK(difference_of(value({1, 0}), value({2, 0})) > 0.0);
  CHECK(AutoModel::from_pretrained(folder.path(), {.dtype = DType::bf16})->named_parameters().front().second->tensor.dtype() == DType::bf16);
}

TEST_CASE("a checkpoint of one task serves another: its head is left out, nothing else") {
  NoGrad no_grad;
  std::vector<NamedTensor> tensors = bert_tensors(Task::sequence_classification);
  tensors.emplace_back("cls.predictions.bias", zeros({50}));
  const Folder folder(bert_config(R"(, "architectures": ["BertForMaskedLM"])"), tensors);
  CHECK_THROWS_WITH_AS(load_pretrained(folder.path()), doctest::Contains("BertForMaskedLM"), ConfigError);
  CHECK(AutoModel::from_pretrained(folder.path())->newly_initialized().empty());
  CHECK(AutoModelForQuestionAnswering::from_pretrained(folder.path())->newly_initialized() == Names{"qa_outputs.bias", "qa_outputs.weight"});
  CHECK(AutoModelForTokenClassification::from_pretrained(folder.path())->newly_initialized().empty());
  const Folder spans(bert_config(), bert_tensors(Task::question_answering));
  CHECK(AutoModelForSequenceClassification::from_pretrained(spans.path())->newly_initialized() ==
        Names{"bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"});

  const auto refused = [&](Task task, const std::string& name, const char* word) {
    std::vector<NamedTensor> changed = bert_tensors(Task::sequence_classification);
    if (name.starts_with("-")) std::erase_if(changed, [&](const NamedTensor& entry) { return entry.first == name.substr(1); });
    else changed.emplace_back(name, zeros({2}));
    const Folder other(bert_config(), changed);
    CHECK_THROWS_WITH_AS(load_pretrained(other.path(), task), doctest::Contains(word), NameError);
  };
  refused(Task::sequence_classification, "bert.encoder.layer.7.output.dense.bias", "unexpected bert.encoder.layer.7");
  refused(Task::sequence_classification, "regressor.weight", "unexpected regressor.weight");
  refused(Task::sequence_classification, "-bert.embeddings.LayerNorm.bias", "missing bert.embeddings.LayerNorm.bias");
  refused(Task::sequence_classification, "-classifier.bias", "missing classifier.bias");
  refused(Task::sequence_classification, "-bert.pooler.dense.weight", "missing bert.pooler.dense.weight");
}

TEST_CASE("a language model without its head is none") {
  const std::string config = R"({"model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": false})";
  std::vector<NamedTensor> tensors = model_for(Task::causal_lm, config)->state_dict();
  std::erase_if(tensors, [](const NamedTensor& entry) { return entry.first == "lm_head.weight"; });
  const Folder folder(config, tensors);
  CHECK_THROWS_WITH_AS(AutoModelForCausalLM::from_pretrained(folder.path()), doctest::Contains("missing lm_head.weight"), NameError);
}

TEST_CASE("labels of one's own are written and read again; a head of another size is an error unless it may be replaced") {
  NoGrad no_grad;
  const Folder bare(bert_config(), bert_tensors(Task::feature_extraction));
  const auto model = AutoModelForTokenClassification::from_pretrained(bare.path(), {.label_names = {"O", "B", "I"}});
  CHECK(model->config().num_labels == 3);
  CHECK(model->forward(tokens()).logits.shape() == Shape{1, 4, 3});
  const TemporaryFolder folder;
  save_pretrained(*model, folder.path());
  const Json config = parse_json(text_of(folder.file("config.json")), "config");
  CHECK(config.at("architectures") == Json::array({"BertForTokenClassification"}));
  CHECK(config.at("id2label") == Json::parse(R"({"0": "O", "1": "B", "2": "I"})"));
  CHECK(config.at("label2id") == Json::parse(R"({"O": 0, "B": 1, "I": 2})"));
  const auto again = load_pretrained(folder.path());
  CHECK(again->task() == Task::token_classification);
  CHECK(again->config().label_names == Names{"O", "B", "I"});
  CHECK(again->newly_initialized().empty());
  CHECK(difference_of(again->forward(tokens()).logits, model->forward(tokens()).logits) == 0.0);

  CHECK_THROWS_AS(load_pretrained(folder.path(), {}, {.num_labels = 5}), ShapeError);
  const auto other = load_pretrained(folder.path(), {}, {.num_labels = 5, .ignore_mismatched_sizes = true});
  CHECK(other->newly_initialized() == Names{"classifier.bias", "classifier.weight"});
  CHECK(other->forward(tokens()).logits.shape() == Shape{1, 4, 5});
  CHECK(other->config().label_names.back() == "LABEL_4");
  CHECK_THROWS_AS(load_pretrained(folder.path(), {}, {.num_labels = 2, .label_names = {"a"}}), ConfigError);
  CHECK_THROWS_AS(load_pretrained(folder.path(), {}, {.label_names = {"a", "a"}}), ConfigError);
  CHECK_THROWS_WITH_AS(load_pretrained(bare.path(), Task::question_answering, {.num_labels = 3}), doctest::Contains("has no classes"), ConfigError);
  const auto regression = AutoModelForSequenceClassification::from_pretrained(bare.path(), {.num_labels = 1, .problem_type = "regression"});
  CHECK(regression->config().problem_type == "regression");
}

TEST_CASE("names of early BERT files, and constants that are no parameters") {
  NoGrad no_grad;
  const auto bare = model_for(Task::feature_extraction, bert_config());
  std::vector<NamedTensor> tensors;
  for (auto [name, tensor] : bare->state_dict()) {
    const std::size_t at = name.rfind("LayerNorm.");
    if (at != std::string::npos) name = name.substr(0, at) + (name.ends_with("weight") ? "LayerNorm.gamma" : "LayerNorm.beta");
    tensors.emplace_back("bert." + name, tensor);
  }
  tensors.emplace_back("bert.embeddings.position_ids", int_rows({0, 1, 2, 3}));
  const Folder folder(bert_config(), tensors);
  CHECK(difference_of(AutoModel::from_pretrained(folder.path())->forward(tokens()).logits, bare->forward(tokens()).logits) == 0.0);
  tensors.emplace_back("bert.embeddings.LayerNorm.weight", ones({16}));
  const Folder twice(bert_config(), tensors);
  CHECK_THROWS_WITH_AS(AutoModel::from_pretrained(twice.path()), doctest::Contains("two names"), FileError);
}

TEST_CASE("T5: whether the head is separate is told by the file, whether outputs are scaled by the configuration") {
  NoGrad no_grad;
  ModelInput input = tokens();
  input.decoder_input_ids = int_rows({0, 7});
  const auto logits = [&](const Folder& folder, Task task = Task::seq2seq_lm) { return load_pretrained(folder.path(), task)->forward(input).logits; };
  const auto separate = model_for(Task::seq2seq_lm, gated_t5_config());
  const Tensor expected = separate->forward(input).logits;
  // As version 4 writes it, and version 5.
  CHECK(difference_of(logits(Folder(gated_t5_config(), separate->state_dict())), expected) == 0.0);
  const std::string newer = t5_config(R"(, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": true, "scale_decoder_outputs": false)");
  CHECK(difference_of(logits(Folder(newer, separate->state_dict())), expected) == 0.0);
  const TemporaryFolder saved;
  save_pretrained(*load_pretrained(Folder(newer, separate->state_dict()).path()), saved.path());
  CHECK(difference_of(load_pretrained(saved.path())->forward(input).logits, expected) == 0.0);
  CHECK_FALSE(parse_json(text_of(saved.file("config.json")), "config").contains("separate_lm_head"));
  // A separate head whose outputs are scaled.
  CHECK(difference_of(mul(expected, 0.25), logits(Folder(t5_config(R"(, "feed_forward_proj": "gated-gelu", "scale_decoder_outputs": true)"), separate->state_dict()))) <= 1e-5);

  const auto tied = model_for(Task::seq2seq_lm, t5_config());
  std::vector<NamedTensor> tensors = tied->state_dict();
  const Tensor shared = tensors.front().second;
  for (const char* name : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}) tensors.emplace_back(name, shared);
  tensors.emplace_back("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", zeros({8, 2}));
  const Folder copies(t5_config(), tensors);
  CHECK(difference_of(logits(copies), tied->forward(input).logits) == 0.0);
  CHECK(load_pretrained(copies.path())->parameter_count() == tied->parameter_count());
  CHECK(logits(copies, Task::feature_extraction).shape() == Shape{1, 2, 16});
  const Folder encoder(t5_config(R"(, "architectures": ["T5EncoderModel"])"), tensors);
  input.decoder_input_ids = Tensor();
  CHECK(load_pretrained(encoder.path())->forward(input).logits.shape() == Shape{1, 4, 16});
  CHECK_THROWS_WITH_AS(load_pretrained(copies.path(), {}, {.dtype = DType::f16}), doctest::Contains("bfloat16"), DTypeError);
}

TEST_CASE("models without values: parameters of full-size architectures are counted") {
  const auto count = [](Task task, const std::string& config) { return model_from_config(config, task, {}, {.meta = true})->parameter_count(); };
  const std::string bert = R"({"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 512, "type_vocab_size": 2})";
  CHECK(count(Task::feature_extraction, bert) == 109482240);
  CHECK(count(Task::sequence_classification, bert) == 109482240 + 2 * 768 + 2);
  CHECK(count(Task::seq2seq_lm, R"({"model_type": "t5", "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12})") == 222903552);
  CHECK(count(Task::causal_lm, R"({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024})") == 124439808);
  const Folder folder(bert_config(), {{"nothing", zeros({1})}});
  const auto model = load_pretrained(folder.path(), Task::token_classification, {.meta = true});
  CHECK(model->named_parameters().front().second->tensor.is_meta());
  CHECK_THROWS_AS(save_pretrained(*model, folder.file("x")), StateError);
}
