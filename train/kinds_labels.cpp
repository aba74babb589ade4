// Kinds of data with labels: classes of texts and of pairs, classes of words, answers in a text.
#include <algorithm>
#include <charconv>

#include "train/example_reader.h"

namespace cambium {

namespace {

/// Byte at which the character with this number begins; nothing behind the end.
std::optional<std::size_t> byte_of_character(const std::string& text, std::int64_t number) {
  std::int64_t seen = -1;
  for (std::size_t at = 0; at < text.size(); ++at)
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80 && ++seen == number) return at;
  return std::nullopt;
}

/// The positions of a window of `room` context tokens with the answer inside, given as positions among the context's tokens: the beginning if the answer lies there,
/// else with as much before the answer as behind it.
std::size_t window_start(std::size_t first, std::size_t last, std::size_t count, std::size_t room) {
  if (last < room) return 0;
  const std::size_t spare = room - (last - first + 1);
  return std::min(first - std::min(first, spare / 2), count - room);
}

}  // namespace

/// Ids, and segments if the text is a pair, of one or two texts; the longer text is cut at its end.
void ExampleReader::encode_texts(Example& example, const std::string& a, const std::string* b) const {
  const auto limit = static_cast<std::size_t>(options_.max_length);
  const auto encode = [&](std::size_t length) {
    EncodeOptions options;
    options.max_length = length;
    return b == nullptr ? tokenizer_->encode_text(a, options) : tokenizer_->encode_pair(a, *b, options);
  };
  Encoding encoding = encode(0);
  if (encoding.ids.size() > limit) {
    example.cut += static_cast<std::int64_t>(encoding.ids.size() - limit);
    encoding = encode(limit);
  }
  example.ids = std::move(encoding.ids);
  if (b != nullptr) example.token_types = std::move(encoding.type_ids);
}

void ExampleReader::classification(Example& example, const Json& object) const {
  const std::int64_t line = example.line;
  if (object.contains("text_a")) {
    const std::string second = string_at(object, "text_b", line);
    encode_texts(example, string_at(object, "text_a", line), &second);
  } else {
    encode_texts(example, string_at(object, options_.text_key, line), nullptr);
  }
  const Json& label = json_member(object, options_.label_key, where(line));
  if (label.is_number_float()) example.values = {label.get<float>()};
  else example.label = class_of(label, options_.label_key, line);
}

void ExampleReader::token_classification(Example& example, const Json& object) const {
  const std::int64_t line = example.line;
  const Json &words = json_member(object, "tokens", where(line)), &labels = json_member(object, "labels", where(line));
  check<FileError>(words.is_array() && labels.is_array() && words.size() == labels.size(), where(line), ": expected lists of as many tokens as labels");
  std::vector<std::string> texts;
  for (const Json& word : words) {
    check<FileError>(word.is_string(), where(line), ": 'tokens': expected words, found ", word.dump());
    texts.push_back(word.get<std::string>());
  }
  const auto limit = static_cast<std::size_t>(options_.max_length);
  EncodeOptions encode;
  Encoding encoding = tokenizer_->encode_words(texts, encode);
  if (encoding.ids.size() > limit) {
    example.cut += static_cast<std::int64_t>(encoding.ids.size() - limit);
    encode.max_length = limit;
    encoding = tokenizer_->encode_words(texts, encode);
  }
  // The first piece of a word carries its label.
  std::int64_t before = -1;
  for (const TokenOrigin& origin : encoding.origins) {
    const bool first = origin.word >= 0 && origin.word != before;
    const Json* label = first ? &labels[static_cast<std::size_t>(origin.word)] : nullptr;
    example.labels.push_back(label == nullptr || *label == -100 ? -100 : class_of(*label, "labels", line));
    if (origin.word >= 0) before = origin.word;
  }
  example.ids = std::move(encoding.ids);
}

void ExampleReader::question_answering(Example& example, const Json& object) const {
  const std::int64_t line = example.line;
  const std::string context = string_at(object, "context", line), answer = string_at(object, "answer", line);
  const Json& start = json_member(object, "answer_start", where(line));
  std::int64_t character = -1;
  if (start.is_string()) {  // from a table
    const std::string& digits = start.get_ref<const std::string&>();
    if (std::from_chars(digits.data(), digits.data() + digits.size(), character).ptr != digits.data() + digits.size()) character = -1;
  } else if (start.is_number_integer()) {
    character = start.get<std::int64_t>();
  }
  const std::optional<std::size_t> begin = byte_of_character(context, character);
  check<FileError>(begin && !answer.empty() && context.compare(*begin, answer.size(), answer) == 0, where(line), ": the answer '", answer, "' does not stand at character ", start.dump(), " of the context");
  const std::size_t end = *begin + answer.size();
  Encoding encoding = tokenizer_->encode_pair(string_at(object, "question", line), context);

  std::vector<std::size_t> of_context;  // positions of its tokens
  std::size_t first = SIZE_MAX, last = 0;  // of the answer, among them
  for (std::size_t t = 0; t < encoding.ids.size(); ++t) {
    const TokenOrigin& origin = encoding.origins[t];
    if (origin.sequence != 1) continue;
    if (origin.begin < end && origin.end > *begin) {
      first = std::min(first, of_context.size());
      last = of_context.size();
    }
    of_context.push_back(t);
  }
  check<FileError>(first != SIZE_MAX, where(line), ": no token of the context holds the answer '", answer, "'");
  const auto limit = static_cast<std::size_t>(options_.max_length);
  std::size_t from = 0, room = of_context.size();
  if (encoding.ids.size() > limit) {
    const std::size_t others = encoding.ids.size() - of_context.size();
    check<FileError>(limit > others && limit - others >= last - first + 1, where(line), ": the question and the answer take more than ", limit, " tokens: raise --max-length or remove the row");
    room = limit - others;
    from = window_start(first, last, of_context.size(), room);
    example.cut = static_cast<std::int64_t>(encoding.ids.size() - limit);
  }
  std::size_t seen = 0;
  for (std::size_t t = 0; t < encoding.ids.size(); ++t) {
    const bool mine = seen < of_context.size() && of_context[seen] == t;
    const std::size_t place = seen;
    if (mine) ++seen;
    if (mine && (place < from || place >= from + room)) continue;
    if (mine && place == first) example.answer_start = static_cast<std::int64_t>(example.ids.size());
    if (mine && place == last) example.answer_end = static_cast<std::int64_t>(example.ids.size());
    example.ids.push_back(encoding.ids[t]);
    example.token_types.push_back(encoding.type_ids[t]);
  }
}

}  // namespace cambium
