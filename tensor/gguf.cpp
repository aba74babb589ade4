// Parsing GGUF: every value is checked against what is left of the file before it is used; nothing is allocated from a count alone.
#include "tensor/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "tensor/checked.h"
#include "tensor/gguf_format.h"
#include "tensor/json_reader.h"

namespace cambium {

static_assert(std::endian::native == std::endian::little);

/// Reads forward through the header. `part` says in messages what is being read.
class GgufFile::Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  std::uint64_t position = 0;
  std::string part;

  std::uint64_t left() const { return bytes_.size() - position; }
  [[noreturn]] void fail_at(std::uint64_t at, std::string_view what) const {
    fail<FileError>(path_, ": byte ", at, part.empty() ? "" : " (" + part + ")", ": ", what);
  }
  template <class T>
  T read(std::string_view what) {
    if (left() < sizeof(T)) fail_at(position, concat_text("expected ", what, ", found the end of the file"));
    T value;
    std::memcpy(&value, bytes_.data() + position, sizeof(T));
    position += sizeof(T);
    return value;
  }
  std::string_view string(std::string_view what, std::uint64_t longest, bool may_be_empty) {
    const std::uint64_t begin = position, length = read<std::uint64_t>(what);
    if (length > left()) fail_at(begin, concat_text("expected ", what, " of at most the ", left(), " bytes left, found a length of ", length));
    if (length > longest) fail_at(begin, concat_text("expected ", what, " of at most ", longest, " bytes, found ", length));
    if (length == 0 && !may_be_empty) fail_at(begin, concat_text("expected ", what, ", found an empty one"));
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data() + position), length);
    position += length;
    return text;
  }
  GgufType type(std::string_view what) {
    const std::uint64_t begin = position;
    const auto number = read<std::uint32_t>(what);
    if (number > static_cast<std::uint32_t>(GgufType::f64)) fail_at(begin, concat_text("expected ", what, " from 0 to 12, found ", number));
    return static_cast<GgufType>(number);
  }
  void skip_value(GgufType kind, int depth) {
    if (kind == GgufType::string) {
      string("a string", gguf::kLongestString, true);
    } else if (kind == GgufType::boolean) {
      booleans(1);
    } else if (kind != GgufType::array) {
      skip(gguf::size_of(kind), "a value");
    } else {
      array(depth);
    }
  }
  void array(int depth) {
    if (depth == gguf::kDeepestArray) fail_at(position, concat_text("expected arrays nested at most ", gguf::kDeepestArray, " deep, found more"));
    const GgufType element = type("the type of an array's elements");
    const std::uint64_t begin = position, count = read<std::uint64_t>("the length of an array");
    if (count > left() / gguf::size_of(element)) {
      fail_at(begin, concat_text("expected an array that fits in the ", left(), " bytes left, found ", count, " elements of type ", name_of(element)));
    }
    if (element == GgufType::boolean) booleans(count);
    else if (element != GgufType::string && element != GgufType::array) position += count * gguf::size_of(element);
    else for (std::uint64_t i = 0; i < count; ++i) skip_value(element, depth + 1);
  }

 private:
  void skip(std::uint64_t bytes, std::string_view what) {
    if (bytes > left()) fail_at(position, concat_text("expected ", what, ", found the end of the file"));
    position += bytes;
  }
  void booleans(std::uint64_t count) {
    const std::uint64_t begin = position;
    skip(count, "a bool");
    const auto values = bytes_.subspan(begin, count);
    const auto odd = std::find_if(values.begin(), values.end(), [](std::byte b) { return std::to_integer<int>(b) > 1; });
    if (odd != values.end()) {
      fail_at(begin + static_cast<std::uint64_t>(odd - values.begin()), concat_text("expected 0 or 1 for a bool, found ", std::to_integer<int>(*odd)));
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
};

namespace {

/// Numbers of the entries sorted by name; `report` is called for the later of two with one name.
template <class NameOf, class Report>
std::vector<std::uint32_t> sorted_by_name(std::size_t count, NameOf&& name_of, Report&& report) {
  std::vector<std::uint32_t> order(count);
  for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    const std::string_view name_a = name_of(a), name_b = name_of(b);
    return name_a != name_b ? name_a < name_b : a < b;
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (name_of(order[i - 1]) == name_of(order[i])) report(order[i]);
  }
  return order;
}

}  // namespace

GgufFile::GgufFile(const std::string& path) : path_(std::make_shared<const std::string>(path)) {
  auto file = MappedFile::open(path);
  bytes_ = {file->data(), file->size()};
  keeper_ = std::move(file);
  parse();
}

GgufFile::GgufFile(std::shared_ptr<const void> keeper, std::span<const std::byte> bytes, const std::string& where)
    : path_(std::make_shared<const std::string>(where)), keeper_(std::move(keeper)), bytes_(bytes) {
  parse();
}

void GgufFile::parse() {
  Parser parser(bytes_, path());
  const bool magic = bytes_.size() >= 4 && std::memcmp(bytes_.data(), "GGUF", 4) == 0;
  check<FileError>(magic, path(), ": byte 0: expected a GGUF file, which begins with \"GGUF\", found ",
                   bytes_.empty() ? "an empty file" : quote_for_message({reinterpret_cast<const char*>(bytes_.data()), std::min<std::size_t>(4, bytes_.size())}));
  parser.position = 4;
  version_ = parser.read<std::uint32_t>("a version");
  if ((version_ & 0xffffU) == 0 && version_ != 0) parser.fail_at(4, "expected a little-endian GGUF file, found a big-endian one: convert it with gguf-convert-endian");
  if (version_ == 1) parser.fail_at(4, "expected GGUF version 2 or 3, found 1: convert the model again with a newer converter");
  if (version_ != 2 && version_ != 3) parser.fail_at(4, concat_text("expected GGUF version 2 or 3, found ", version_));
  const auto tensor_count = parser.read<std::uint64_t>("the number of tensors"), entry_count = parser.read<std::uint64_t>("the number of metadata entries");
  const auto check_count = [&](std::uint64_t at, std::uint64_t count, std::uint64_t smallest, std::string_view what) {
    if (count > parser.left() / smallest || count > UINT32_MAX) {
      parser.fail_at(at, concat_text("expected a number of ", what, " that fits in the ", parser.left(), " bytes left, found ", count));
    }
  };
  check_count(8, tensor_count, gguf::kSmallestTensor, "tensors");
  check_count(16, entry_count, gguf::kSmallestEntry, "metadata entries");

  entries_.reserve(entry_count);
  for (std::uint64_t i = 0; i < entry_count; ++i) {
    parser.part = "metadata entry " + std::to_string(i);
    const std::uint64_t begin = parser.position;
    const std::string_view key = parser.string("a key", gguf::kLongestKey, false);
    parser.part = "metadata " + quote_for_message(key);
    entries_.push_back({begin, parser.position});
    const GgufType kind = parser.type("the type of a value");
    const std::uint64_t at = parser.position;
    parser.skip_value(kind, 0);
    if (key == "general.alignment") {
      if (kind != GgufType::u32) parser.fail_at(at - 4, concat_text("expected an alignment of type u32, found ", name_of(kind)));
      std::uint32_t alignment = 0;
      std::memcpy(&alignment, bytes_.data() + at, 4);
      if (!std::has_single_bit(alignment) || alignment < 8 || alignment > 65536) {
        parser.fail_at(at, concat_text("expected an alignment that is a power of two from 8 to 65536, found ", alignment));
      }
      alignment_ = alignment;
    }
  }
  parser.part.clear();
  by_key_ = sorted_by_name(entries_.size(), [&](std::uint32_t i) { return string_at(entries_[i].key); }, [&](std::uint32_t i) {
    parser.fail_at(entries_[i].key, "expected keys that differ, found " + quote_for_message(string_at(entries_[i].key)) + " twice");
  });

  tensors_.reserve(tensor_count);
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    parser.part = "tensor " + std::to_string(i);
    GgufTensorInfo info{.name = parser.string("a name", gguf::kLongestKey, false)};
    parser.part = "tensor " + quote_for_message(info.name);
    const std::uint64_t rank_at = parser.position;
    const auto rank = parser.read<std::uint32_t>("the number of dimensions");
    if (rank < 1 || rank > 4) parser.fail_at(rank_at, concat_text("expected 1 to 4 dimensions, found ", rank));
    std::int64_t sizes[4] = {};
    const std::uint64_t sizes_at = parser.position;
    for (std::uint32_t d = 0; d < rank; ++d) {
      const std::uint64_t at = parser.position, size = parser.read<std::uint64_t>("a size");
      if (size < 1 || size > std::uint64_t{INT64_MAX}) parser.fail_at(at, concat_text("expected a size from 1 to 2^63-1, found ", size));
      sizes[rank - 1 - d] = static_cast<std::int64_t>(size);
    }
    const std::uint64_t type_at = parser.position;
    const auto number = parser.read<std::uint32_t>("a type");
    const GgmlFormat* format = find_ggml_format(number);
    if (!format) parser.fail_at(type_at, concat_text("expected a known tensor type, found number ", number));
    info.type = format->type;
    const std::span<const std::int64_t> used(sizes, rank);
    const auto count = checked_count(used);
    if (!count) parser.fail_at(sizes_at, "expected at most 2^62 elements, found more");
    info.shape = Shape(used);
    if (sizes[rank - 1] % format->block_elements != 0) {
      parser.fail_at(sizes_at, concat_text("expected rows of a multiple of ", format->block_elements, " elements for ", format->name, ", found ", sizes[rank - 1]));
    }
    const auto bytes = checked_mul(*count / static_cast<std::uint64_t>(format->block_elements), static_cast<std::uint64_t>(format->block_bytes));
    if (!bytes) parser.fail_at(sizes_at, "expected a tensor of less than 2^64 bytes");
    info.bytes = *bytes;
    const std::uint64_t offset_at = parser.position;
    info.offset = parser.read<std::uint64_t>("an offset");
    if (info.offset % alignment_ != 0) parser.fail_at(offset_at, concat_text("expected an offset that is a multiple of ", alignment_, ", found ", info.offset));
    tensors_.push_back(info);
  }
  parser.part.clear();
  by_name_ = sorted_by_name(tensors_.size(), [&](std::uint32_t i) { return tensors_[i].name; }, [&](std::uint32_t i) {
    parser.fail_at(parser.position, "expected tensors that differ in name, found " + quote_for_message(tensors_[i].name) + " twice");
  });
  const std::uint64_t padding = (alignment_ - parser.position % alignment_) % alignment_;
  data_ = padding <= parser.left() ? bytes_.subspan(parser.position + padding) : bytes_.subspan(bytes_.size());
  check_tensor_ranges();
  check_vocabulary();
}

void GgufFile::check_tensor_ranges() {
  const std::uint64_t data_begin = bytes_.size() - data_.size();
  for (const GgufTensorInfo& info : tensors_) {
    check<FileError>(info.offset <= data_.size() && info.bytes <= data_.size() - info.offset, path(), ": byte ", bytes_.size(), " (tensor ",
                     quote_for_message(info.name), "): expected ", info.bytes, " bytes at ", info.offset, " of the data, found only ", data_.size(),
                     " bytes of data: the file is cut");
  }
  std::vector<std::uint32_t> order(tensors_.size());
  for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return tensors_[a].offset < tensors_[b].offset; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const GgufTensorInfo &before = tensors_[order[i - 1]], &after = tensors_[order[i]];
    check<FileError>(after.offset - before.offset >= before.bytes, path(), ": byte ", data_begin + after.offset, " (tensor ", quote_for_message(after.name),
                     "): expected tensors that do not overlap, found one that begins within ", quote_for_message(before.name));
  }
}

std::string_view GgufFile::string_at(std::uint64_t position) const { return gguf::string_at(bytes_, position); }

std::vector<std::string_view> GgufFile::keys() const {
  std::vector<std::string_view> keys;
  keys.reserve(entries_.size());
  for (const Entry& entry : entries_) keys.push_back(string_at(entry.key));
  return keys;
}

std::optional<GgufValue> GgufFile::find(std::string_view key) const {
  const auto at = std::lower_bound(by_key_.begin(), by_key_.end(), key, [&](std::uint32_t i, std::string_view wanted) { return string_at(entries_[i].key) < wanted; });
  if (at == by_key_.end() || string_at(entries_[*at].key) != key) return std::nullopt;
  return value_at(entries_[*at]);
}

GgufValue GgufFile::value(std::string_view key) const {
  auto found = find(key);
  check<FileError>(found.has_value(), path(), ": expected metadata ", quote_for_message(key), ", found none");
  return *found;
}

GgufValue GgufFile::value_at(const Entry& entry) const {
  Parser parser(bytes_, path());
  parser.position = entry.value;
  GgufValue value;
  value.path_ = path();
  value.key_ = string_at(entry.key);
  value.type_ = parser.type("");
  const std::uint64_t begin = parser.position;
  parser.skip_value(value.type_, 0);
  value.bytes_ = bytes_.subspan(begin, parser.position - begin);
  return value;
}

const GgufTensorInfo* GgufFile::find_tensor(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name, [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  return at != by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

const GgufTensorInfo& GgufFile::info(std::string_view name) const {
  const GgufTensorInfo* found = find_tensor(name);
  check<NameError>(found != nullptr, path(), ": no tensor ", quote_for_message(name), " among its ", tensors_.size());
  return *found;
}

}  // namespace cambium
