// Tables in text files: comma- or tab-separated values with a header.
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace cambium {

/// Reads RFC 4180 strictly: fields may be quoted, quoted ones hold separators, line breaks and doubled quotes; rows end with LF or CR LF; every row has as many fields
/// as the header. What breaks a rule is a FileError with file and line.
class CsvReader {
 public:
  /// `path` starts messages. Reads the header: names that are not empty and different.
  CsvReader(std::istream& in, std::string path, char separator);
  const std::vector<std::string>& columns() const { return columns_; }
  /// The next row, in the order of the columns; false at the end. Blank lines are passed over in tables of more than one column.
  bool next(std::vector<std::string>& fields);
  std::int64_t line() const { return row_line_; }  ///< where that row begins, from 1

 private:
  bool read_record(std::vector<std::string>& fields);
  int get();
  [[noreturn]] void refuse(std::int64_t line, const std::string& what) const;

  std::istream& in_;
  std::string path_;
  char separator_;
  std::vector<std::string> columns_;
  std::int64_t line_ = 1, row_line_ = 1;
};

}  // namespace cambium
