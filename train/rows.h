// Rows of a data file as JSON objects, whatever the file is: JSON lines, a table, plain text. Internal: not installed.
#pragma once

#include <fstream>
#include <memory>
#include <string>

#include "tensor/json.h"
#include "train/csv.h"

namespace cambium {

struct Row {
  Json object;
  std::int64_t line = 0;  ///< where it begins, from 1
};

/// .txt: paragraphs, as {text_key: …}; .csv and .tsv: a row's fields as texts under the names of their columns; else an object a line.
class RowReader {
 public:
  RowReader(const std::string& path, std::string text_key);
  /// FileError with file and line; false at the end.
  bool next(Row& row);
  bool is_plain_text() const { return format_ == Format::text; }

 private:
  enum class Format { lines, text, table };
  bool next_object(Row& row);
  bool next_paragraph(Row& row);
  bool next_record(Row& row);

  std::string path_, text_key_;
  Format format_ = Format::lines;
  std::ifstream file_;
  std::unique_ptr<CsvReader> table_;
  std::int64_t line_ = 0;
};

}  // namespace cambium
