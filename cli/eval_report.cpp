// What an evaluation found, for people and for programs.
#include <algorithm>
#include <iomanip>
#include <sstream>

#include "cli/command.h"

namespace cambium::cli {

namespace {

std::string fixed(double value, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << value;
  return out.str();
}

/// Columns of a terminal that a UTF-8 text takes, counting each character as one.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}
std::string padded(const std::string& text, std::size_t width, bool right) {
  const std::string space(width - std::min(width, width_of(text)), ' ');
  return right ? space + text : text + space;
}

}  // namespace

std::string eval_line(const EvalResult& e) {
  std::string line = "loss " + fixed(e.loss, 4);
  if (e.perplexity) line += ", perplexity " + fixed(*e.perplexity, 4);
  if (e.accuracy) line += ", accuracy " + fixed(*e.accuracy, 4);
  if (e.f1) line += ", overlap F1 " + fixed(*e.f1, 4);
  if (e.confusion) line += ", macro-F1 " + fixed(e.confusion->macro_f1(), 4);
  return line;
}

Json eval_json(const EvalResult& e) {
  Json out{{"loss", e.loss}, {"tokens", e.tokens}};
  if (e.perplexity) out["perplexity"] = *e.perplexity;
  if (e.accuracy) out["accuracy"] = *e.accuracy;
  if (e.f1) out["f1"] = *e.f1;
  if (e.confusion) {
    out["macro_f1"] = e.confusion->macro_f1();
    Json rows = Json::array();
    for (std::int64_t i = 0; i < e.confusion->classes(); ++i) {
      rows.push_back(Json::array());
      for (std::int64_t j = 0; j < e.confusion->classes(); ++j) rows.back().push_back(e.confusion->at(i, j));
    }
    out["confusion"] = std::move(rows);
  }
  return out;
}

std::string class_table(const Confusion& confusion, const std::vector<std::string>& names) {
  const std::int64_t classes = confusion.classes();
  const auto name = [&](std::int64_t i) { return static_cast<std::size_t>(i) < names.size() ? names[static_cast<std::size_t>(i)] : std::to_string(i); };
  std::size_t first = 4, cell = 4;
  for (std::int64_t i = 0; i < classes; ++i) {
    first = std::max(first, width_of(name(i)));
    for (std::int64_t j = 0; j < classes; ++j) cell = std::max(cell, std::to_string(confusion.at(i, j)).size() + 1);
  }
  const std::size_t number = std::to_string(classes - 1).size();
  std::string out = "rows: true classes; columns: how many were taken for class 0, 1, …\n" + std::string(number + 1, ' ') + padded("", first, false) + "  precision  recall      F1 |";
  for (std::int64_t j = 0; j < classes; ++j) out += padded(std::to_string(j), cell, true);
  out += '\n';
  for (std::int64_t i = 0; i < classes; ++i) {
    out += padded(std::to_string(i), number, true) + ' ' + padded(name(i), first, false) + padded(fixed(confusion.precision(i), 3), 11, true) + padded(fixed(confusion.recall(i), 3), 8, true) +
           padded(fixed(confusion.f1(i), 3), 8, true) + " |";
    for (std::int64_t j = 0; j < classes; ++j) out += padded(confusion.at(i, j) == 0 && i != j ? "." : std::to_string(confusion.at(i, j)), cell, true);
    out += '\n';
  }
  return out;
}

}  // namespace cambium::cli
