// Lines of token ids, which need no tokenizer, for every task.
#include "train/example_reader.h"

namespace cambium {

void ExampleReader::tokens(Example& example, const Json& object) const {
  const std::int64_t line = example.line;
  example.ids = integers_at(object, "input_ids", line);
  const std::size_t length = example.ids.size();
  if (object.contains("token_type_ids")) {
    example.token_types = integers_at(object, "token_type_ids", line);
    check<FileError>(example.token_types.size() == length, where(line), ": ", length, " input_ids but ", example.token_types.size(), " token_type_ids");
  }
  const Task task = options_.task;
  const auto only_for = [&](const char* key, Task wanted) {
    check<FileError>(!object.contains(key) || task == wanted, where(line), ": '", key, "' has no meaning for the task ", task_name(task));
  };
  only_for("decoder_input_ids", Task::seq2seq_lm);
  only_for("start_positions", Task::question_answering);
  only_for("end_positions", Task::question_answering);
  const bool given = object.contains("labels");
  if (task == Task::question_answering) {
    check<FileError>(!given, where(line), ": 'labels' has no meaning for the task question-ans: give start_positions and end_positions");
    example.answer_start = json_integer(json_member(object, "start_positions", where(line)), where(line) + ": start_positions", 0, static_cast<std::int64_t>(length) - 1);
    example.answer_end = json_integer(json_member(object, "end_positions", where(line)), where(line) + ": end_positions", example.answer_start, static_cast<std::int64_t>(length) - 1);
  } else if (task == Task::sequence_classification) {
    const Json& label = json_member(object, "labels", where(line));
    if (label.is_number_float()) {
      example.values = {label.get<float>()};
    } else if (label.is_array()) {
      for (const Json& v : label) {
        check<FileError>(v.is_number(), where(line), ": 'labels': expected numbers, found ", v.dump());
        example.values.push_back(v.get<float>());
      }
    } else {
      example.label = class_of(label, "labels", line);
    }
  } else if (task == Task::token_classification) {
    check<FileError>(given && object["labels"].is_array() && object["labels"].size() == length, where(line), ": 'labels': expected a list of ", length, " classes, one for each of input_ids");
    for (const Json& v : object["labels"]) example.labels.push_back(v == -100 ? -100 : class_of(v, "labels", line));
  } else {
    check<FileError>(given || task == Task::causal_lm, where(line), ": expected the key 'labels'");
    example.labels = given ? integers_at(object, "labels", line) : example.ids;
    if (object.contains("decoder_input_ids")) {
      example.decoder_ids = integers_at(object, "decoder_input_ids", line);
      check<FileError>(example.decoder_ids.size() == example.labels.size(), where(line), ": ", example.decoder_ids.size(), " decoder_input_ids but ", example.labels.size(), " labels");
    }
    check<FileError>(task == Task::seq2seq_lm || example.labels.size() == length, where(line), ": ", length, " input_ids but ", example.labels.size(), " labels");
    for (std::int64_t label : given ? example.labels : std::vector<std::int64_t>())
      check<FileError>(label == -100 || (label >= 0 && (options_.vocabulary == 0 || label < options_.vocabulary)), where(line), ": label ", label, " is neither a token nor -100");
  }
  if (!object.contains("attention_mask")) return;
  const std::vector<std::int64_t> mask = integers_at(object, "attention_mask", line);
  check<FileError>(mask.size() == length, where(line), ": ", length, " input_ids but ", mask.size(), " entries of attention_mask");
  // Padding is dropped: batches are made anew.
  const bool per_token = task == Task::causal_lm || task == Task::token_classification;
  Example kept = example;
  kept.ids.clear();
  kept.token_types.clear();
  if (per_token) kept.labels.clear();
  for (std::size_t i = 0; i < length; ++i) {
    const auto position = static_cast<std::int64_t>(i);
    if (mask[i] == 0) {
      if (task == Task::question_answering) {
        check<FileError>(position < example.answer_start || position > example.answer_end, where(line), ": the answer covers position ", i, ", which attention_mask hides");
        if (position < example.answer_start) --kept.answer_start, --kept.answer_end;
      }
      continue;
    }
    kept.ids.push_back(example.ids[i]);
    if (per_token) kept.labels.push_back(example.labels[i]);
    if (!example.token_types.empty()) kept.token_types.push_back(example.token_types[i]);
  }
  example = std::move(kept);
}

}  // namespace cambium
