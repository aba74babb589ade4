// Telling files by their names and reading them row by row.
#include "train/rows.h"

#include "nn/text/unicode.h"

namespace cambium {

RowReader::RowReader(const std::string& path, std::string text_key) : path_(path), text_key_(std::move(text_key)), file_(path, std::ios::binary) {
  check<FileError>(file_.good(), "data: cannot open ", path);
  if (path.ends_with(".txt")) {
    format_ = Format::text;
  } else if (path.ends_with(".csv") || path.ends_with(".tsv")) {
    format_ = Format::table;
    table_ = std::make_unique<CsvReader>(file_, path, path.ends_with(".tsv") ? '\t' : ',');
  }
}

bool RowReader::next(Row& row) {
  const bool found = format_ == Format::text ? next_paragraph(row) : format_ == Format::table ? next_record(row) : next_object(row);
  check<FileError>(!file_.bad(), "data: cannot read ", path_);
  return found;
}

bool RowReader::next_object(Row& row) {
  for (std::string text; std::getline(file_, text);) {
    ++line_;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = concat_text(path_, ":", line_);
    row.object = parse_json(text, where);
    row.line = line_;
    check<FileError>(row.object.is_object(), where, ": expected an object, found ", row.object.type_name());
    return true;
  }
  return false;
}

bool RowReader::next_paragraph(Row& row) {
  std::string paragraph;
  for (std::string text; std::getline(file_, text);) {
    ++line_;
    if (!text.empty() && text.back() == '\r') text.pop_back();
    if (text.find_first_not_of(" \t") == std::string::npos) {
      if (!paragraph.empty()) break;
      continue;
    }
    if (paragraph.empty()) row.line = line_;
    paragraph += (paragraph.empty() ? "" : "\n") + text;
  }
  row.object = Json{{text_key_, paragraph}};
  return !paragraph.empty();
}

bool RowReader::next_record(Row& row) {
  std::vector<std::string> fields;
  if (!table_->next(fields)) return false;
  row.line = table_->line();
  row.object = Json::object();
  for (std::size_t i = 0; i < fields.size(); ++i) {
    check<FileError>(detail::is_valid_utf8(fields[i]), path_, ":", row.line, ": column '", table_->columns()[i], "': expected UTF-8");
    row.object[table_->columns()[i]] = std::move(fields[i]);
  }
  return true;
}

}  // namespace cambium
