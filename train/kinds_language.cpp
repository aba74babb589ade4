// Kinds of data for language models: text, completions, instructions, chats, and pairs of source and target.
#include "nn/text/chat_template.h"
#include "train/example_reader.h"

namespace cambium {

void ExampleReader::add(Example& example, const std::string& part, bool learned) const {
  const std::vector<std::int64_t> ids = tokenizer_->encode(part);
  example.ids.insert(example.ids.end(), ids.begin(), ids.end());
  if (learned) example.labels.insert(example.labels.end(), ids.begin(), ids.end());
  else example.labels.insert(example.labels.end(), ids.size(), -100);
}

void ExampleReader::end(Example& example) const {
  if (!end_) return;
  example.ids.push_back(*end_);
  example.labels.push_back(*end_);
}

void ExampleReader::text(Example& example, const Json& object) const {
  add(example, string_at(object, options_.text_key, example.line), true);
  end(example);
}

void ExampleReader::completion(Example& example, const Json& object) const {
  const std::string prompt = string_at(object, options_.prompt_key, example.line), completion = string_at(object, options_.completion_key, example.line);
  if (options_.task == Task::seq2seq_lm) return seq2seq(example, prompt, completion);
  add(example, prompt + options_.prompt_separator, options_.train_on_prompt);
  add(example, completion, true);
  end(example);
}

/// The encoder's text as the tokenizer puts it for a model; the target ends with the end token, which the decoder has to learn.
void ExampleReader::seq2seq(Example& example, const std::string& source, const std::string& target) const {
  example.ids = encode_whole(source, options_.max_length, example.cut);
  example.labels = encode_whole(target, options_.max_target_length > 0 ? options_.max_target_length : options_.max_length, example.cut);
  if (end_ && (example.labels.empty() || example.labels.back() != *end_)) example.labels.push_back(*end_);
}

// The prompt of Stanford Alpaca (Taori et al. 2023).
void ExampleReader::instruct(Example& example, const Json& object) const {
  const std::int64_t line = example.line;
  const std::string input = optional_string(object, "input", line);
  std::string prompt = optional_string(object, "system", line);
  if (prompt.empty())
    prompt = input.empty() ? "Below is an instruction that describes a task. Write a response that appropriately completes the request."
                           : "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.";
  if (object.contains("history") && !object["history"].is_null()) {
    check<FileError>(object["history"].is_array(), where(line), ": 'history': expected a list of [instruction, answer]");
    for (const Json& turn : object["history"]) {
      check<FileError>(turn.is_array() && turn.size() == 2 && turn[0].is_string() && turn[1].is_string(), where(line), ": 'history': expected a list of [instruction, answer]");
      prompt += "\n\n### Instruction:\n" + turn[0].get<std::string>() + "\n\n### Response:\n" + turn[1].get<std::string>();
    }
  }
  prompt += "\n\n### Instruction:\n" + string_at(object, "instruction", line) + (input.empty() ? "" : "\n\n### Input:\n" + input) + "\n\n### Response:\n";
  add(example, prompt, options_.train_on_prompt);
  add(example, string_at(object, "output", line), true);
  end(example);
}

void ExampleReader::chat(Example& example, const Json& object) const {
  const std::int64_t line = example.line;
  check<ConfigError>(!tokenizer_->chat_template().empty(), where(line), ": this model has no chat template: use prompt and completion instead");
  std::vector<ChatMessage> messages;
  const bool sharegpt = object.contains("conversations");
  const Json& list = json_member(object, sharegpt ? "conversations" : "messages", where(line));
  check<FileError>(list.is_array() && !list.empty(), where(line), ": expected a list of messages");
  for (const Json& item : list) {
    check<FileError>(item.is_object(), where(line), ": expected messages as objects");
    std::string role = string_at(item, sharegpt ? "from" : "role", line);
    if (role == "human") role = "user";
    else if (role == "gpt") role = "assistant";
    check<FileError>(role == "system" || role == "user" || role == "assistant" || role == "tool", where(line), ": role: expected system, user, assistant or tool, found '", role, "'");
    messages.push_back({std::move(role), string_at(item, sharegpt ? "value" : "content", line)});
  }
  const RenderedChat rendered = render_chat(*tokenizer_, messages);
  // Pieces are encoded apart at the borders of the assistant's turns, so that no token is half learned.
  std::size_t at = 0;
  for (const auto& [begin, stop] : rendered.assistant) {
    add(example, rendered.text.substr(at, begin - at), options_.train_on_prompt);
    add(example, rendered.text.substr(begin, stop - begin), true);
    at = stop;
  }
  add(example, rendered.text.substr(at), options_.train_on_prompt);
}

}  // namespace cambium
