// What the kinds of data share: detection, fields, classes.
#include "train/example_reader.h"

#include <algorithm>

namespace cambium {

namespace {
std::string keys_of(const Json& object) {
  std::string keys;
  for (const auto& [key, value] : object.items()) keys += (keys.empty() ? "" : ", ") + key;
  return keys;
}
}  // namespace

ExampleReader::ExampleReader(std::string path, const Tokenizer* tokenizer, const DataOptions& options) : path_(std::move(path)), tokenizer_(tokenizer), options_(options) {
  end_ = options.end_token_id;
  if (!end_ && tokenizer != nullptr) end_ = tokenizer->eos_id();
}

bool serves(DataKind kind, Task task) {
  switch (kind) {
    case DataKind::text: case DataKind::instruct: case DataKind::chat: return task == Task::causal_lm;
    case DataKind::completion: return task == Task::causal_lm || task == Task::seq2seq_lm;
    case DataKind::seq2seq: return task == Task::seq2seq_lm;
    case DataKind::classification: return task == Task::sequence_classification;
    case DataKind::token_classification: return task == Task::token_classification;
    case DataKind::question_answering: return task == Task::question_answering;
    default: return task != Task::feature_extraction;
  }
}

DataKind ExampleReader::detect(const Json& object, std::int64_t line) const {
  const auto has = [&](const std::string& key) { return object.contains(key); };
  if (has("input_ids")) return DataKind::tokens;
  // Rows often hold more than a task needs, so the task's own kind comes first.
  if (options_.task == Task::sequence_classification && has(options_.label_key) && (has(options_.text_key) || has("text_a"))) return DataKind::classification;
  if (has("messages") || has("conversations")) return DataKind::chat;
  if (has("instruction") && has("output")) return DataKind::instruct;
  if (has(options_.prompt_key) && has(options_.completion_key)) return DataKind::completion;
  if (has("question") && has("context")) return DataKind::question_answering;
  if (has("source") && has("target")) return DataKind::seq2seq;
  if (has("tokens") && has("labels")) return DataKind::token_classification;
  if (has(options_.text_key)) return DataKind::text;
  const std::string keys = keys_of(object);
  fail<ConfigError>(where(line), ": cannot tell the kind of data from the keys ", keys.empty() ? "(none)" : keys, ": expected ", options_.text_key, "; ", options_.text_key, " and ", options_.label_key, "; ",
                    options_.prompt_key, " and ", options_.completion_key, "; messages; instruction and output; source and target; tokens and labels; question and context; or input_ids");
}

Example ExampleReader::read(const Json& object, DataKind kind, std::int64_t line) const {
  Example example;
  example.line = line;
  if (kind != DataKind::tokens) check<ConfigError>(tokenizer_ != nullptr, where(line), ": this model has no tokenizer: give lines of input_ids");
  switch (kind) {
    case DataKind::text: text(example, object); break;
    case DataKind::completion: completion(example, object); break;
    case DataKind::instruct: instruct(example, object); break;
    case DataKind::chat: chat(example, object); break;
    case DataKind::classification: classification(example, object); break;
    case DataKind::token_classification: token_classification(example, object); break;
    case DataKind::question_answering: question_answering(example, object); break;
    case DataKind::seq2seq: seq2seq(example, string_at(object, "source", line), string_at(object, "target", line)); break;
    default: tokens(example, object);
  }
  finish(example, kind);
  return example;
}

/// Cuts what grew by joining pieces, and checks.
void ExampleReader::finish(Example& example, DataKind kind) const {
  const auto limit = static_cast<std::size_t>(options_.max_length);
  const bool generates = options_.task == Task::causal_lm;
  if (example.ids.size() > limit) {
    example.cut += static_cast<std::int64_t>(example.ids.size() - limit);
    example.ids.resize(limit);
    if (generates || options_.task == Task::token_classification) example.labels.resize(limit);
    if (!example.token_types.empty()) example.token_types.resize(limit);
    if (options_.task == Task::question_answering)
      check<FileError>(example.answer_end < static_cast<std::int64_t>(limit), where(example.line), ": the answer lies beyond ", limit, " tokens: raise --max-length or remove the row");
  }
  const std::int64_t target_limit = options_.max_target_length > 0 ? options_.max_target_length : options_.max_length;
  if (options_.task == Task::seq2seq_lm && static_cast<std::int64_t>(example.labels.size()) > target_limit) {
    example.cut += static_cast<std::int64_t>(example.labels.size()) - target_limit;
    example.labels.resize(static_cast<std::size_t>(target_limit));
    if (!example.decoder_ids.empty()) example.decoder_ids.resize(static_cast<std::size_t>(target_limit));
  }
  if (generates && !example.labels.empty() && !options_.first_token_is_target) example.labels.front() = -100;  // nothing stands before the first token
  if (options_.vocabulary > 0) {
    const auto inside = [&](const std::vector<std::int64_t>& ids) {
      for (std::int64_t id : ids) check<FileError>(id >= 0 && id < options_.vocabulary, where(example.line), ": token id ", id, " is outside the vocabulary of ", options_.vocabulary);
    };
    inside(example.ids);
    inside(example.decoder_ids);
  }
  const char* way_out = kind == DataKind::tokens || example.cut == 0 ? ": it is empty or all of it is masked" : ": raise --max-length or remove the row";
  check<FileError>(example.targets() > 0 && !example.ids.empty(), where(example.line), ": nothing to learn is left in this row of ", example.ids.size(), " tokens", example.cut > 0 ? ": raise --max-length or remove the row" : way_out);
}

std::string ExampleReader::string_at(const Json& object, const std::string& key, std::int64_t line) const {
  const auto found = object.find(key);
  check<FileError>(found != object.end(), where(line), ": expected the key '", key, "'");
  check<FileError>(found->is_string(), where(line), ": '", key, "': expected a text, found ", found->type_name());
  return found->get<std::string>();
}

std::string ExampleReader::optional_string(const Json& object, const std::string& key, std::int64_t line) const {
  return object.contains(key) && !object[key].is_null() ? string_at(object, key, line) : std::string();
}

std::vector<std::int64_t> ExampleReader::integers_at(const Json& object, const std::string& key, std::int64_t line) const {
  check<FileError>(object.contains(key) && object[key].is_array(), where(line), ": '", key, "': expected a list of integers");
  std::vector<std::int64_t> out;
  for (const Json& v : object[key]) {
    check<FileError>(v.is_number_integer(), where(line), ": '", key, "': expected integers, found ", v.dump());
    out.push_back(v.get<std::int64_t>());
  }
  return out;
}

std::optional<std::string> ExampleReader::label_text(const Json& object, std::int64_t line) const {
  const auto found = object.find(options_.label_key);
  check<FileError>(found != object.end(), where(line), ": expected the key '", options_.label_key, "'");
  if (found->is_number_float()) return std::nullopt;
  check<FileError>(found->is_string() || found->is_number_integer(), where(line), ": '", options_.label_key, "': expected a text or a number, found ", found->type_name());
  return found->is_string() ? found->get<std::string>() : found->dump();
}

/// A class by its name, or by its number where no class is called so.
std::int64_t ExampleReader::class_of(const Json& value, const std::string& key, std::int64_t line) const {
  check<FileError>(value.is_string() || value.is_number_integer(), where(line), ": '", key, "': expected names or numbers of classes, found ", value.dump());
  const std::string name = value.is_string() ? value.get<std::string>() : value.dump();
  const auto& names = options_.label_names;
  if (const auto found = std::find(names.begin(), names.end(), name); found != names.end()) return found - names.begin();
  if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    if (number >= 0 && number < static_cast<std::int64_t>(names.size())) return number;
  }
  std::string known;
  for (std::size_t i = 0; i < std::min<std::size_t>(names.size(), 20); ++i) known += (i == 0 ? "" : ", ") + names[i];
  fail<FileError>(where(line), ": unknown label '", name, "': expected one of ", known, names.size() > 20 ? concat_text(", … (", names.size(), " in all)") : "");
}

std::vector<std::int64_t> ExampleReader::encode_whole(const std::string& text, std::int64_t limit, std::int64_t& cut) const {
  std::vector<std::int64_t> whole = tokenizer_->encode(text, true);
  if (static_cast<std::int64_t>(whole.size()) <= limit) return whole;
  cut += static_cast<std::int64_t>(whole.size()) - limit;
  EncodeOptions options;
  options.max_length = static_cast<std::size_t>(limit);
  return tokenizer_->encode_text(text, options).ids;
}

}  // namespace cambium
