// Text on its way through a tokenizer, which remembers on request where each of its bytes came from. Internal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/error.h"

namespace cambium::detail {

/// A stretch of bytes of the text that the caller gave.
struct Origin {
  std::uint32_t begin = 0, end = 0;
};

class Text {
 public:
  Text() = default;
  /// `text`, whose first byte is byte `begin` of the caller's. ShapeError: 4 GiB or more to be traced.
  Text(std::string text, bool traced, std::size_t begin = 0) : bytes_(std::move(text)), traced_(traced), at_start_(begin == 0) {
    if (!traced) return;
    check<ShapeError>(begin + bytes_.size() < UINT32_MAX, "tokenizer: expected a text below 4 GiB, found ", begin + bytes_.size(), " bytes");
    origins_.reserve(bytes_.size());
    for (std::size_t i = begin; i < begin + bytes_.size(); ++i) origins_.push_back({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i + 1)});
  }

  const std::string& bytes() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }
  bool traced() const { return traced_; }
  /// Whether its first byte stands for the first of the caller's; known of every text.
  bool at_start() const { return at_start_; }
  /// The bytes [begin, end) with their origins.
  Text slice(std::size_t begin, std::size_t end) const {
    Text part;
    part.bytes_.assign(bytes_, begin, end - begin);
    part.traced_ = traced_;
    part.at_start_ = at_start_ && begin == 0;
    if (traced_) part.origins_.assign(origins_.begin() + static_cast<std::ptrdiff_t>(begin), origins_.begin() + static_cast<std::ptrdiff_t>(end));
    return part;
  }
  /// Where [begin, end) came from; an empty stretch stands at its place. Only of a traced text.
  Origin origin(std::size_t begin, std::size_t end) const {
    if (origins_.empty()) return {};
    if (begin == end) return begin < origins_.size() ? Origin{origins_[begin].begin, origins_[begin].begin} : Origin{origins_.back().end, origins_.back().end};
    return {origins_[begin].begin, origins_[end - 1].end};
  }

 private:
  friend class Rewriter;
  std::string bytes_;
  std::vector<Origin> origins_;  // of each byte, if traced
  bool traced_ = false;
  bool at_start_ = true;
};

/// Builds the successor of a text from its start to its end, then takes its place.
class Rewriter {
 public:
  explicit Rewriter(Text& text) : text_(text) {
    out_.reserve(text.bytes_.size() + 16);
    if (text.traced_) origins_.reserve(text.bytes_.size() + 16);
  }
  const std::string& source() const { return text_.bytes_; }
  /// Appends `bytes`, which stand for [begin, end) of the source.
  void put(std::string_view bytes, std::size_t begin, std::size_t end) {
    if (out_.empty()) at_start_ = text_.at_start_ && begin == 0;
    out_ += bytes;
    if (text_.traced_) origins_.insert(origins_.end(), bytes.size(), text_.origin(begin, end));
  }
  /// Appends [begin, end) of the source as it is.
  void keep(std::size_t begin, std::size_t end) {
    if (out_.empty()) at_start_ = text_.at_start_ && begin == 0;
    out_.append(text_.bytes_, begin, end - begin);
    if (text_.traced_) origins_.insert(origins_.end(), text_.origins_.begin() + static_cast<std::ptrdiff_t>(begin), text_.origins_.begin() + static_cast<std::ptrdiff_t>(end));
  }
  std::size_t size() const { return out_.size(); }
  bool ends_with(std::string_view end) const { return std::string_view(out_).ends_with(end); }
  /// Takes the last bytes off what was put so far.
  void drop(std::size_t count) {
    out_.erase(out_.size() - count);
    if (text_.traced_) origins_.resize(out_.size());
  }
  void finish() {
    text_.bytes_ = std::move(out_);
    text_.origins_ = std::move(origins_);
    text_.at_start_ = at_start_;
  }

 private:
  Text& text_;
  std::string out_;
  std::vector<Origin> origins_;
  bool at_start_ = true;
};

/// Puts `prefix` before a text. It stands for the text's first character or, as the blank of byte-level models, for nothing.
void prepend(Text& text, std::string_view prefix, bool stands_for_first = true);

}  // namespace cambium::detail
