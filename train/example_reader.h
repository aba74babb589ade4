// One row of a data file becomes an example: a function for each kind of data. Internal: not installed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "nn/text/tokenizer.h"
#include "tensor/json.h"
#include "train/dataset.h"

namespace cambium {

class ExampleReader {
 public:
  ExampleReader(std::string path, const Tokenizer* tokenizer, const DataOptions& options);

  std::string where(std::int64_t line) const { return concat_text(path_, ":", line); }
  /// The kind that the keys of a line tell, seen from the task.
  DataKind detect(const Json& object, std::int64_t line) const;
  /// The example, cut to the limit and checked.
  Example read(const Json& object, DataKind kind, std::int64_t line) const;

  /// The label of a row as text: a name, or the digits of a whole number. Nothing for a number to predict.
  std::optional<std::string> label_text(const Json& object, std::int64_t line) const;

 private:
  // kinds_language.cpp
  void text(Example& example, const Json& object) const;
  void completion(Example& example, const Json& object) const;
  void instruct(Example& example, const Json& object) const;
  void chat(Example& example, const Json& object) const;
  void seq2seq(Example& example, const std::string& source, const std::string& target) const;
  void add(Example& example, const std::string& part, bool learned) const;
  void end(Example& example) const;
  // kinds_labels.cpp
  void classification(Example& example, const Json& object) const;
  void token_classification(Example& example, const Json& object) const;
  void question_answering(Example& example, const Json& object) const;
  void encode_texts(Example& example, const std::string& a, const std::string* b) const;
  std::int64_t class_of(const Json& value, const std::string& key, std::int64_t line) const;
  // kinds_tokens.cpp
  void tokens(Example& example, const Json& object) const;
  void finish(Example& example, DataKind kind) const;

  std::string string_at(const Json& object, const std::string& key, std::int64_t line) const;
  std::string optional_string(const Json& object, const std::string& key, std::int64_t line) const;
  std::vector<std::int64_t> integers_at(const Json& object, const std::string& key, std::int64_t line) const;
  /// Ids of a text with the tokenizer's own tokens around it, the text cut so that all fit into `limit`.
  std::vector<std::int64_t> encode_whole(const std::string& text, std::int64_t limit, std::int64_t& cut) const;

  std::string path_;
  const Tokenizer* tokenizer_;
  const DataOptions& options_;
  std::optional<std::int64_t> end_;
};

/// Whether rows of a kind are of use for a task.
bool serves(DataKind kind, Task task);

}  // namespace cambium
