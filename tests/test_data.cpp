// Kinds of data for every task: tables, labels, pairs, words, answers, sources and targets; what is cut, what is refused, and the batches they become.
#include <doctest/doctest.h>

#include <sstream>

#include "nn/text/tokenizer.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"
#include "train/batching.h"
#include "train/csv.h"
#include "train/metrics.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Ids = std::vector<std::int64_t>;

/// A word-level tokenizer that puts [CLS] … [SEP] … [SEP] around texts, as BERT's does. Ids: 0 [PAD], 1 [CLS], 2 [SEP], 3 [UNK], then the words.
const Tokenizer& words_tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::from_json(R"({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
    "added_tokens": [{"id": 0, "content": "[PAD]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
                     {"id": 1, "content": "[CLS]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
                     {"id": 2, "content": "[SEP]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
      "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
               {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
      "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}},
    "model": {"type": "WordLevel", "unk_token": "[UNK]",
      "vocab": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "the": 4, "cat": 5, "sat": 6, "on": 7, "mat": 8, "who": 9, "é": 10, "-": 11, "dog": 12, "ran": 13}}})", "words");
  return tokenizer;
}

DataOptions options_for(Task task, std::vector<std::string> labels = {}) {
  DataOptions options;
  options.task = task;
  options.label_names = std::move(labels);
  return options;
}
Dataset read(const std::string& text, const DataOptions& options, const char* name = "d.jsonl") {
  const TemporaryFolder folder;
  return load_dataset(folder.write(name, text), &words_tokenizer(), options);
}
std::string refused(const std::string& text, const DataOptions& options, const char* name = "d.jsonl") {
  const std::string message = error_of<Error>([&] { read(text, options, name); });
  return message.substr(std::min(message.size(), message.find(name)));
}
std::vector<std::string> labels_in(const std::string& text, const DataOptions& options, const char* name = "d.jsonl") {
  const TemporaryFolder folder;
  return find_label_names(folder.write(name, text), options);
}

struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::int64_t> lines;
};
Table table(const std::string& text, char separator = ',') {
  std::istringstream in(text);
  CsvReader reader(in, "t.csv", separator);
  Table out{reader.columns(), {}, {}};
  for (std::vector<std::string> row; reader.next(row);) {
    out.rows.push_back(row);
    out.lines.push_back(reader.line());
  }
  return out;
}
std::string bad_table(const std::string& text) {
  return error_of<FileError>([&] { table(text); });
}

std::vector<const Example*> rows_of(const Dataset& data) {
  std::vector<const Example*> rows;
  for (const Example& example : data.examples) rows.push_back(&example);
  return rows;
}
Ids ints(const Tensor& t) { return t.to_vector<std::int64_t>(); }

}  // namespace

TEST_CASE("tables: quotes, line breaks, line numbers") {
  const Table t = table("\xEF\xBB\xBFtext,label\r\n\"a, \"\"b\"\"\r\nc\",x\r\n\r\nplain,\n\"\",y");
  CHECK(t.columns == std::vector<std::string>{"text", "label"});
  REQUIRE(t.rows.size() == 3);
  CHECK(t.rows[0] == std::vector<std::string>{"a, \"b\"\r\nc", "x"});
  CHECK(t.rows[1] == std::vector<std::string>{"plain", ""});
  CHECK(t.rows[2] == std::vector<std::string>{"", "y"});
  CHECK(t.lines == Ids{2, 5, 6});
  CHECK(table("a\tb\n1,5\t\"x\ty\"\n", '\t').rows[0] == std::vector<std::string>{"1,5", "x\ty"});
  CHECK(table("one\n\nx\n").rows.size() == 2);  // a blank line is an empty field where there is one column
  CHECK(bad_table("a,b\n1\n") == "t.csv:2: expected 2 fields as in the header, found 1: quote fields that hold a comma or a line break");
  CHECK(contains(bad_table("a,b\n1,2\n3,4,5\n"), "t.csv:3: expected 2 fields"));
  CHECK(contains(bad_table("a,b\n\"x\n\n"), "t.csv:2: the quote that opens here is never closed"));
  CHECK(contains(bad_table("a,b\n\"x\"y,1\n"), "t.csv:2: text behind a closing quote"));
  CHECK(contains(bad_table("a,b\nx\"y,1\n"), "t.csv:2: a quote inside a field"));
  CHECK(contains(bad_table(""), "t.csv:1: expected a header"));
  CHECK(contains(bad_table("a,,b\n"), "column 2"));
  CHECK(contains(bad_table("a,a\n"), "'a' comes twice"));
}

TEST_CASE("classification: lines, tables, pairs, classes") {
  const std::string lines = "{\"text\": \"the cat\", \"label\": \"pets\", \"source\": \"x\"}\n{\"text\": \"on the mat\", \"label\": \"floors\"}\n";
  DataOptions options = options_for(Task::sequence_classification);
  options.label_names = labels_in(lines, options);
  CHECK(options.label_names == std::vector<std::string>{"floors", "pets"});
  const Dataset data = read(lines, options);
  CHECK(data.kind == DataKind::classification);
  CHECK(data.examples[0].ids == Ids{1, 4, 5, 2});
  CHECK(data.examples[0].label == 1);
  CHECK(data.examples[1].label == 0);
  CHECK(data.targets == 2);
  CHECK(data.tokens == 9);
  CHECK(refused(lines + "{\"text\": \"the\", \"label\": \"birds\"}", options) == "d.jsonl:3: unknown label 'birds': expected one of floors, pets");
  CHECK(contains(refused("{\"text\": \"the\", \"label\": [1]}", options), "expected names or numbers"));
  CHECK(contains(refused("{\"text\": 1, \"label\": \"pets\"}", options), "d.jsonl:1: 'text': expected a text"));
  CHECK(contains(refused("{\"text\": \"the\"}", options), "rows of the kind text do not serve the task seq-cls"));

  const Dataset from_table = read("label,text\npets,\"the, cat\"\nfloors,mat\n", options, "d.csv");
  CHECK(from_table.examples[0].ids == Ids{1, 4, 3, 5, 2});
  CHECK(from_table.examples[1].line == 3);
  CHECK(read("text\tlabel\nmat\tpets\n", options, "d.tsv").examples[0].label == 1);
  CHECK(contains(refused("text,label\nmat,birds\n", options, "d.csv"), "d.csv:2: unknown label 'birds'"));
  CHECK(contains(refused("text,label\nmat,\xff\n", options, "d.csv"), "d.csv:2: column 'label': expected UTF-8"));

  const Dataset pairs = read("{\"text_a\": \"the cat\", \"text_b\": \"sat\", \"label\": \"pets\"}", options);
  CHECK(pairs.examples[0].ids == Ids{1, 4, 5, 2, 6, 2});
  CHECK(pairs.examples[0].token_types == Ids{0, 0, 0, 0, 1, 1});

  options.max_length = 4;
  const Dataset cut = read("{\"text\": \"the cat sat on the mat\", \"label\": \"pets\"}", options);
  CHECK(cut.examples[0].ids == Ids{1, 4, 5, 2});  // the tokenizer's own tokens stay
  CHECK(cut.cut_rows == 1);
  CHECK(cut.cut_tokens == 4);
}

TEST_CASE("classes by number, numbers to predict, several labels") {
  DataOptions options = options_for(Task::sequence_classification);
  const std::string numbers = "{\"text\": \"the\", \"label\": 10}\n{\"text\": \"cat\", \"label\": 2}\n";
  CHECK(labels_in(numbers, options).size() == 11);
  CHECK(labels_in("text,label\nthe,2\ncat,0\n", options, "d.csv") == std::vector<std::string>{"0", "1", "2"});
  CHECK(labels_in("{\"input_ids\": [1], \"labels\": 1}\n", options) == std::vector<std::string>{"0", "1"});
  CHECK(labels_in("{\"text\": \"the\", \"label\": 0.5}\n", options).empty());
  options.label_names = {"no", "yes"};
  CHECK(read("{\"text\": \"the\", \"label\": 1}", options).examples[0].label == 1);
  CHECK(contains(refused("{\"text\": \"the\", \"label\": 2}", options), "unknown label '2'"));
  CHECK(contains(refused("{\"text\": \"the\", \"label\": -1}", options), "unknown label '-1'"));
  const Dataset values = read("{\"text\": \"the\", \"label\": 0.5}\n{\"text\": \"cat\", \"label\": -1.0}", options);
  CHECK(values.examples[1].values == std::vector<float>{-1.0F});
  CHECK(contains(refused("{\"text\": \"the\", \"label\": 0.5}\n{\"text\": \"cat\", \"label\": 1}", options), "d.jsonl:2: expected labels as in the first row"));
  const Dataset several = read("{\"input_ids\": [1, 2], \"labels\": [0.0, 1.0]}", options);
  CHECK(several.examples[0].values == std::vector<float>{0.0F, 1.0F});
  CHECK(make_batch(rows_of(several), {BatchLayout::padded}, several.task).input.labels.shape() == Shape{1, 2});
  CHECK(make_batch(rows_of(values), {BatchLayout::padded}, values.task).input.labels.shape() == Shape{2});
}

TEST_CASE("words with labels: the first piece carries it") {
  DataOptions options = options_for(Task::token_classification);
  const std::string line = "{\"tokens\": [\"the\", \"cat-dog\", \"sat\"], \"labels\": [\"O\", \"PET\", \"O\"]}\n";
  options.label_names = labels_in(line, options);
  CHECK(options.label_names == std::vector<std::string>{"O", "PET"});
  const Dataset data = read(line, options);
  CHECK(data.kind == DataKind::token_classification);
  CHECK(data.examples[0].ids == Ids{1, 4, 5, 11, 12, 6, 2});
  CHECK(data.examples[0].labels == Ids{-100, 0, 1, -100, -100, 0, -100});
  CHECK(data.targets == 3);
  CHECK(contains(refused("{\"tokens\": [\"the\"], \"labels\": []}", options), "as many tokens as labels"));
  CHECK(contains(refused("{\"tokens\": [\"the\"], \"labels\": [\"X\"]}", options), "unknown label 'X'"));
  CHECK(contains(refused("{\"tokens\": [1], \"labels\": [\"O\"]}", options), "expected words"));
  const Dataset tokens = read("{\"input_ids\": [5, 6, 7], \"labels\": [1, -100, 0], \"attention_mask\": [1, 1, 0]}", options);
  CHECK(tokens.examples[0].ids == Ids{5, 6});
  CHECK(tokens.examples[0].labels == Ids{1, -100});
  CHECK(contains(refused("{\"input_ids\": [5, 6], \"labels\": 1}", options), "a list of 2 classes"));
  // Virtual tokens before each row have no label.
  const Batch batch = make_batch(rows_of(data), {BatchLayout::padded, 0, 2}, data.task);
  CHECK(ints(batch.input.labels) == Ids{-100, -100, -100, 0, 1, -100, -100, 0, -100});
}

TEST_CASE("answers in a context: positions, characters, windows") {
  DataOptions options = options_for(Task::question_answering);
  const auto line = [](const std::string& context, const std::string& answer, int start) {
    return "{\"question\": \"who sat\", \"context\": \"" + context + "\", \"answer\": \"" + answer + "\", \"answer_start\": " + std::to_string(start) + "}\n";
  };
  const Dataset data = read(line("the cat sat on the mat", "the mat", 15), options);
  CHECK(data.kind == DataKind::question_answering);
  CHECK(data.examples[0].ids == Ids{1, 9, 6, 2, 4, 5, 6, 7, 4, 8, 2});
  CHECK(data.examples[0].token_types == Ids{0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1});
  CHECK(data.examples[0].answer_start == 8);
  CHECK(data.examples[0].answer_end == 9);
  CHECK(data.targets == 1);
  CHECK(read(line("é é cat", "cat", 4), options).examples[0].answer_start == 6);  // characters, not bytes
  CHECK(contains(refused(line("the cat", "mat", 4), options), "d.jsonl:1: the answer 'mat' does not stand at character 4"));
  CHECK(contains(refused(line("the cat", "cat", 99), options), "does not stand at"));
  CHECK(contains(refused(line("the cat", "cat", -1), options), "does not stand at"));
  CHECK(contains(refused(line("the cat", "", 0), options), "does not stand at"));
  options.max_length = 8;  // [CLS] who sat [SEP] … [SEP]: three tokens of context
  const Dataset cut = read(line("the cat sat on the mat", "on", 12) + line("the cat sat on the mat", "cat", 4) + line("the cat sat on the mat", "mat", 19), options);
  CHECK(cut.cut_rows == 3);
  CHECK(cut.cut_tokens == 9);
  const std::int64_t wanted[] = {7, 5, 8};
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(cut.examples[i].ids.size() == 8);
    CHECK(cut.examples[i].answer_start == cut.examples[i].answer_end);
    CHECK(cut.examples[i].ids[static_cast<std::size_t>(cut.examples[i].answer_start)] == wanted[i]);
  }
  CHECK(contains(refused(line("the cat sat on the mat", "cat sat on the", 4), options), "take more than 8 tokens"));
  options = options_for(Task::question_answering);
  const Dataset tokens = read("{\"input_ids\": [0, 5, 6, 7], \"attention_mask\": [0, 1, 1, 1], \"start_positions\": 2, \"end_positions\": 3}", options);
  CHECK(tokens.examples[0].answer_start == 1);
  CHECK(tokens.examples[0].answer_end == 2);
  CHECK(contains(refused("{\"input_ids\": [5, 6], \"start_positions\": 1, \"end_positions\": 0}", options), "end_positions"));
  CHECK(contains(refused("{\"input_ids\": [5, 6], \"start_positions\": 0, \"end_positions\": 2}", options), "end_positions"));
  CHECK(contains(refused("{\"input_ids\": [5, 6], \"labels\": 1}", options), "give start_positions"));
  const Batch batch = make_batch(rows_of(data), {BatchLayout::padded, 0, 3}, data.task);
  CHECK(ints(batch.input.start_positions) == Ids{11});
  CHECK(ints(batch.input.end_positions) == Ids{12});
}

TEST_CASE("sources and targets") {
  DataOptions options = options_for(Task::seq2seq_lm);
  options.end_token_id = 2;
  const std::string lines = "{\"source\": \"the cat\", \"target\": \"dog\"}\n{\"source\": \"mat\", \"target\": \"the dog ran\"}\n";
  const Dataset data = read(lines, options);
  CHECK(data.kind == DataKind::seq2seq);
  CHECK(data.examples[0].ids == Ids{1, 4, 5, 2});
  CHECK(data.examples[0].labels == Ids{1, 12, 2});  // ends once
  CHECK(data.targets == 8);
  CHECK(read("{\"prompt\": \"the\", \"completion\": \"dog\"}", options).examples[0].labels == Ids{1, 12, 2});
  const Batch batch = make_batch(rows_of(data), {}, data.task);
  CHECK(batch.input.input_ids.shape() == Shape{2, 4});
  CHECK(ints(batch.input.attention_mask) == Ids{1, 1, 1, 1, 1, 1, 1, 0});
  CHECK(ints(batch.input.labels) == Ids{1, 12, 2, -100, -100, 1, 4, 12, 13, 2});
  options.max_target_length = 3;
  CHECK(read(lines, options).cut_rows == 1);
  const Dataset tokens = read("{\"input_ids\": [5, 6], \"labels\": [7, 8, 2], \"decoder_input_ids\": [0, 7, 8]}", options);
  CHECK(ints(make_batch(rows_of(tokens), {}, tokens.task).input.decoder_input_ids) == Ids{0, 7, 8});
  CHECK(contains(refused("{\"input_ids\": [5, 6]}", options), "labels"));
  CHECK(contains(refused("{\"input_ids\": [5, 6], \"labels\": [7], \"decoder_input_ids\": [0, 7]}", options), "2 decoder_input_ids but 1 labels"));
  CHECK(contains(refused("{\"text\": \"the\"}", options), "rows of the kind text do not serve the task seq2seq"));
  CHECK(contains(refused("{\"input_ids\": [5, 6], \"labels\": [5, 6], \"decoder_input_ids\": [0, 7]}", options_for(Task::causal_lm)), "'decoder_input_ids' has no meaning"));
}

TEST_CASE("tasks and kinds by name") {
  for (const Task task : {Task::causal_lm, Task::seq2seq_lm, Task::sequence_classification, Task::token_classification, Task::question_answering, Task::feature_extraction})
    CHECK(parse_task(task_name(task)) == task);
  CHECK(contains(error_of<ConfigError>([] { parse_task("poetry"); }), "seq-cls"));
  CHECK(contains(error_of<ConfigError>([] { read("{\"text\": \"the\"}", options_for(Task::feature_extraction)); }), "no loss"));
}

TEST_CASE("rows behind a learned prompt: the first token is a target") {
  DataOptions options;
  options.first_token_is_target = true;
  const Dataset data = read("{\"input_ids\": [4, 5, 6]}", options);
  CHECK(data.examples[0].labels == Ids{4, 5, 6});
  CHECK(data.targets == 3);
}

TEST_CASE("batches: segments are left to models that know them, and rows agree") {
  Dataset data = read("{\"text_a\": \"the\", \"text_b\": \"cat\", \"label\": 0}\n{\"text_a\": \"mat\", \"text_b\": \"sat on\", \"label\": 1}\n", options_for(Task::sequence_classification, {"a", "b"}));
  const Batch padded = make_batch(rows_of(data), {BatchLayout::padded, 9}, data.task);
  CHECK(ints(padded.input.input_ids) == Ids{1, 4, 2, 5, 2, 9, 1, 8, 2, 6, 7, 2});
  CHECK(ints(padded.input.token_type_ids) == Ids{0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1});
  CHECK(ints(padded.input.labels) == Ids{0, 1});
  const Batch ragged = make_batch(rows_of(data), {}, data.task);
  CHECK(ints(ragged.input.token_type_ids).size() == 11);
  CHECK(ragged.input.starts.to_vector<std::int32_t>() == std::vector<std::int32_t>{0, 5, 11});
  BatchFormat plain;
  plain.segments = false;
  CHECK_FALSE(make_batch(rows_of(data), plain, data.task).input.token_type_ids.defined());
  data.examples[1].token_types.clear();
  CHECK_THROWS_AS(make_batch(rows_of(data), {}, data.task), StateError);
  CHECK_THROWS_AS(make_batch(rows_of(data), {BatchLayout::ragged, 0, 4}, data.task), StateError);
}

TEST_CASE("confusion matrix: accuracy, F1") {
  Confusion c(4);
  const int pairs[][2] = {{0, 0}, {0, 0}, {0, 1}, {1, 1}, {1, 0}, {2, 1}};
  for (const auto& [truth, predicted] : pairs) c.add(truth, predicted);
  CHECK(c.count() == 6);
  CHECK(c.accuracy() == doctest::Approx(0.5));
  CHECK(c.precision(0) == doctest::Approx(2.0 / 3));
  CHECK(c.recall(0) == doctest::Approx(2.0 / 3));
  CHECK(c.f1(0) == doctest::Approx(2.0 / 3));
  CHECK(c.f1(1) == doctest::Approx(0.4));
  CHECK(c.f1(2) == 0.0);
  CHECK(c.macro_f1() == doctest::Approx((2.0 / 3 + 0.4) / 3));  // class 3 does not occur
  CHECK_THROWS_AS(c.add(4, 0), ShapeError);
  CHECK(Confusion(2).macro_f1() == 0.0);
}
