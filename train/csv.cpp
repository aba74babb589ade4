// Reading tables character by character.
#include "train/csv.h"

#include <algorithm>

#include "kernels/error.h"

namespace cambium {

CsvReader::CsvReader(std::istream& in, std::string path, char separator) : in_(in), path_(std::move(path)), separator_(separator) {
  if (in_.peek() == 0xEF) {  // the byte order mark that spreadsheets put in front
    char mark[3];
    in_.read(mark, 3);
    if (in_.gcount() != 3 || std::string_view(mark, 3) != "\xEF\xBB\xBF") refuse(1, "expected UTF-8");
  }
  if (!read_record(columns_)) refuse(1, "expected a header with the names of the columns");
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i].empty()) refuse(1, concat_text("column ", i + 1, " of the header has no name"));
    if (std::find(columns_.begin(), columns_.begin() + static_cast<std::ptrdiff_t>(i), columns_[i]) != columns_.begin() + static_cast<std::ptrdiff_t>(i))
      refuse(1, "the column '" + columns_[i] + "' comes twice in the header");
  }
}

bool CsvReader::next(std::vector<std::string>& fields) {
  do {
    if (!read_record(fields)) return false;
  } while (columns_.size() > 1 && fields.size() == 1 && fields.front().empty());
  if (fields.size() != columns_.size())
    refuse(row_line_, concat_text("expected ", columns_.size(), " fields as in the header, found ", fields.size(), ": quote fields that hold a ", separator_ == '\t' ? "tab" : "comma", " or a line break"));
  return true;
}

int CsvReader::get() {
  const int c = in_.get();
  if (c == '\n') ++line_;
  return c;
}

void CsvReader::refuse(std::int64_t line, const std::string& what) const { fail<FileError>(path_, ":", line, ": ", what); }

bool CsvReader::read_record(std::vector<std::string>& fields) {
  fields.clear();
  row_line_ = line_;
  if (in_.peek() == EOF) return false;
  for (;;) {
    std::string field;
    int c = get();
    if (c == '"') {
      const std::int64_t opened = line_;
      for (;;) {
        c = get();
        if (c == EOF) refuse(opened, "the quote that opens here is never closed");
        if (c == '"') {
          if (in_.peek() != '"') break;
          get();
        }
        field += static_cast<char>(c);
      }
      c = get();
      if (c != EOF && c != '\n' && c != '\r' && c != separator_) refuse(line_, "text behind a closing quote: double the quotes inside a quoted field");
    } else {
      while (c != EOF && c != '\n' && c != separator_ && !(c == '\r' && (in_.peek() == '\n' || in_.peek() == EOF))) {
        if (c == '"') refuse(line_, "a quote inside a field that is not quoted: quote the field and double the quotes inside");
        field += static_cast<char>(c);
        c = get();
      }
    }
    fields.push_back(std::move(field));
    if (c == separator_) continue;
    if (c == '\r') {
      c = get();
      if (c != '\n' && c != EOF) refuse(line_, "a carriage return without a line feed behind a quoted field");
    }
    return true;
  }
}

}  // namespace cambium
